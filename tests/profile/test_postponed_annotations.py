"""Nobody waits for the types of keys that the profile does not have."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import msgspec
import pytest

from sevlaunch.profile import validation
from sevlaunch.profile.loader import loads
from sevlaunch.profile.model import Model


def kinds(base: type[Model] = Model) -> Iterator[type[Model]]:
    """All mappings that a profile may have."""
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_the_model_is_made_without_evaluating_a_type() -> None:
    evaluated = {
        f"{kind.__name__}.{name}"
        for kind in kinds()
        for name, annotation in inspect.get_annotations(kind).items()
        if not isinstance(annotation, str)
    }
    assert len(list(kinds())) > 30
    assert not evaluated


def test_only_the_types_of_the_keys_that_are_there_are_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    evaluate = validation.field_type_of

    def counted(annotation: object) -> validation.FieldType:
        asked.append(annotation)
        return evaluate(annotation)

    monkeypatch.setattr(validation, "field_type_of", counted)
    # It evaluates those of all fields.
    monkeypatch.delattr(msgspec.structs, "fields")
    validation.type_of.cache_clear()
    loads("{name: a, memory: 512M, smm: false}")
    # name; memory, and size in it; smm.
    assert len(asked) == 4
