"""Commands that have the same options: said once, as the fields of a NamedTuple."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints


def spread(function: Callable[..., None]) -> Callable[..., None]:
    """A command with an option for each field of a parameter that is a NamedTuple; ``function`` gets them as that."""
    hints = get_type_hints(function, include_extras=True)
    parameters: list[inspect.Parameter] = []
    gathered: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        kind = hints[name]
        if not (inspect.isclass(kind) and issubclass(kind, tuple)):
            parameters.append(parameter.replace(annotation=kind))
            continue
        gathered[name] = kind
        fields = get_type_hints(kind, include_extras=True)
        for field, annotation in fields.items():
            default = gathered[name]._field_defaults.get(field, inspect.Parameter.empty)
            parameters.append(
                inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
            )

    def command(**given: Any) -> None:
        for name, kind in gathered.items():
            given[name] = kind(**{field: given.pop(field) for field in kind._fields})
        function(**given)

    # What is read of a command: its name, its help, its parameters.
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    named = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    command.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in named}
    return command
