"""A saved host is read for each `render --host`, and what QEMU knows for every command that plans."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from sevlaunch.host.facts import Facts
from sevlaunch.host.model import Host


def kinds(base: type[Facts] = Facts) -> Iterator[type[Facts]]:
    """All groups of facts."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_no_type_of_a_fact_is_text_that_msgspec_has_to_evaluate() -> None:
    assert Host in kinds()
    text = {
        f"{kind.__name__}.{name}"
        for kind in kinds()
        for name, annotation in inspect.get_annotations(kind).items()
        if isinstance(annotation, str)
    }
    assert not text
