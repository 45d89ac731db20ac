"""Plain data -> Profile, with every mistake at once.

What is wrong gives way to its default, or to a placeholder, and the rest is read on: a rule about two values is
then reported in the same run as a wrong third one.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from sevlaunch.errors import Problem
from sevlaunch.profile.fields import Parser, Placeholder
from sevlaunch.profile.model import Model, Profile
from sevlaunch.profile.model.base import attribute_of
from sevlaunch.profile.positions import KeyPath, Positions
from sevlaunch.profile.source import MAX_DIGITS

_Kind = TypeVar("_Kind", bound=Model)

# Keys of a profile file that are gone before it is read here.
_LOADERS_KEYS = ("extends", "cpus")
# The key that tells the kinds of a mapping apart, where there are several.
_TAG = "type"


class FieldType(msgspec.Struct, frozen=True):
    """What the type of a field says of its values.

    ``element``: that of a list's; ``names`` and ``named``: those of the keys of a mapping whose keys are anybody's to
    choose, and of what they lead to.
    """

    annotation: Any
    kinds: tuple[Any, ...]
    optional: bool
    parser: Parser | None
    stand_in: Placeholder | None
    words: tuple[str, ...]
    structs: tuple[type[Model], ...]
    element: FieldType | None
    names: FieldType | None
    named: FieldType | None
    meta: tuple[msgspec.Meta, ...]

    @property
    def placeholder(self) -> Any:
        """A value for this field that no rule minds."""
        if self.stand_in:
            return self.stand_in.value
        if self.optional:
            return None
        if self.structs:
            return placeholder(self.structs[0])
        if self.element:
            return []
        if self.named:
            return {}
        return self.words[0] if self.words else 0 if int in self.kinds else ""


@functools.cache
def type_of(kind: type[Model], key: str) -> FieldType:
    """The type of one field of a kind of mapping."""
    attribute = attribute_of(key)
    owner = next(base for base in kind.__mro__ if attribute in inspect.get_annotations(base))
    # Annotations are postponed, and only those of the keys that a profile has are evaluated: few of all.
    annotation = inspect.get_annotations(owner)[attribute]
    module = kind.types_of_few.get(key)
    own = vars(import_module(module)) if module else None
    return field_type_of(eval(annotation, vars(sys.modules[owner.__module__]), own))


def field_types(kind: type[Model]) -> dict[str, FieldType]:
    """The types of all fields of a kind of mapping."""
    return {key: type_of(kind, key) for key in kind.__struct_encode_fields__}


def field_type_of(annotation: Any) -> FieldType:
    """What an annotation says."""
    members = list(_members(annotation))
    extras = [extra for _, extras in members for extra in extras]
    plain = [member for member, _ in members]
    element = next((get_args(member)[0] for member in plain if get_origin(member) is list), None)
    names, named = next((get_args(member) for member in plain if get_origin(member) is dict), (None, None))
    return FieldType(
        annotation,
        tuple(plain),
        NoneType in plain,
        next((extra for extra in extras if isinstance(extra, Parser)), None),
        next((extra for extra in extras if isinstance(extra, Placeholder)), None),
        tuple(word for member in plain if get_origin(member) is Literal for word in get_args(member)),
        tuple(member for member in plain if isinstance(member, type) and issubclass(member, Model)),
        field_type_of(element) if element is not None else None,
        field_type_of(names) if names is not None else None,
        field_type_of(named) if named is not None else None,
        tuple(extra for extra in extras if isinstance(extra, msgspec.Meta)),
    )


def _members(annotation: Any, extras: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The members of a union, or the one type, each with what is annotated on it."""
    if get_origin(annotation) is Annotated:
        yield from _members(annotation.__origin__, (*annotation.__metadata__, *extras))
    elif get_origin(annotation) in (Union, UnionType):
        for member in get_args(annotation):
            yield from _members(member, extras)
    else:
        yield annotation, extras


def placeholder(kind: type[Model]) -> Model:
    """A mapping of this kind that no rule minds."""
    return kind(**{key: type_of(kind, key).placeholder for key in required_keys(kind)})


def required_keys(kind: type[Model]) -> list[str]:
    """The keys that a mapping of this kind has to have."""
    # msgspec.structs.fields() says it too, but evaluates all annotations first. Defaults are those of the last fields.
    defaults = kind.__struct_defaults__
    names = kind.__struct_fields__
    without = len(names) - len(defaults)
    told = zip(names[without:], defaults, strict=True)
    return [*names[:without], *(name for name, default in told if default is msgspec.NODEFAULT)]


def known_keys(structs: tuple[type[Model], ...], value: Any) -> list[str]:
    """The keys that a mapping of one of these kinds may have; which one ``value`` says."""
    kind = _kind(structs, value)
    keys = list(kind.__struct_encode_fields__) if kind else [_TAG]
    return [*_LOADERS_KEYS, *keys] if kind is Profile else keys


def _kind(structs: tuple[type[Model], ...], value: Any) -> type[Model] | None:
    if len(structs) == 1:
        return structs[0]
    return next((kind for kind in structs if value.get(_TAG) in type_of(kind, _TAG).words), None)


class Reading:
    """One reading of a profile: what was wrong, and the paths of what was."""

    def __init__(self, positions: Positions) -> None:
        self.problems: list[Problem] = []
        self.wrong: set[KeyPath] = set()
        self._positions = positions

    def profile(self, data: dict[str, Any]) -> Profile:
        """The profile; where something is wrong, with a placeholder in its place."""
        return self.mapping(Profile, data)

    def mapping(self, kind: type[_Kind], data: dict[str, Any]) -> _Kind:
        """As :meth:`profile`, for a file of another kind."""
        found: _Kind = self._struct((kind,), data, ())
        return found

    def _mistake(self, path: KeyPath, message: str, *, at_key: bool = False, wrong: KeyPath | None = None) -> None:
        location = str(self._positions.nearest(path, key=at_key))
        self.problems.append(Problem(message, location=location, path=".".join(map(str, path))))
        self.wrong.add(path if wrong is None else wrong)

    def _struct(self, structs: tuple[type[Model], ...], value: Any, path: KeyPath) -> Any:
        if not isinstance(value, dict):
            instead = f"; write {{model: {value}}}" if path == ("cpu",) and isinstance(value, str) else ""
            self._mistake(path, f"wanted a mapping of keys and values, found {_shown(value)}{instead}")
            return placeholder(structs[0])
        kind = _kind(structs, value)
        if kind is None:
            # Without its type, nothing in a mapping means anything.
            tag = (*path, _TAG)
            if _TAG in value:
                words = [word for one in structs for word in type_of(one, _TAG).words]
                self._mistake(tag, _wanted_one_of(words, value[_TAG]), wrong=path)
            else:
                self._mistake(tag, f"{_TAG} is required", wrong=path)
            return placeholder(structs[0])
        found: dict[str, Any] = {}
        for key, inner in value.items():
            place = (*path, key)
            if key not in kind.__struct_encode_fields__:
                self._mistake(place, _unknown_key(key, structs, value), at_key=True)
                continue
            read = self._value(type_of(kind, key), inner, place)
            if place not in self.wrong:
                found[key] = read
        for key in required_keys(kind):
            if key not in found:
                found[key] = type_of(kind, key).placeholder
                if key not in value:
                    self._mistake((*path, key), f"{key} is required")
        return kind(**{attribute_of(key): inner for key, inner in found.items()})

    def _value(self, field_type: FieldType, value: Any, path: KeyPath) -> Any:
        if value is None and field_type.optional:
            return None
        if isinstance(value, str) and value in field_type.words:
            return str(value)
        if field_type.structs and (isinstance(value, dict) or field_type.parser is None):
            return self._struct(field_type.structs, value, path)
        if field_type.element:
            return self._list(field_type.element, value, path)
        if field_type.parser is None and field_type.names and field_type.named:
            return self._mapping(field_type.names, field_type.named, value, path)
        if field_type.parser is None:
            return self._plain(field_type, value, path)
        try:
            return field_type.parser.read(value)
        except ValueError as error:
            text_of_digits = _is_number(value) and str in field_type.kinds
            self._mistake(path, f"{error}{_QUOTES if text_of_digits else ''}")
        return field_type.placeholder

    def _list(self, element: FieldType, value: Any, path: KeyPath) -> list[Any]:
        if not isinstance(value, list):
            self._mistake(path, f"wanted a list, found {_shown(value)}")
            return []
        return [self._value(element, inner, (*path, index)) for index, inner in enumerate(value)]

    def _mapping(self, names: FieldType, named: FieldType, value: Any, path: KeyPath) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._mistake(path, f"wanted a mapping of names and values, found {_shown(value)}")
            return {}
        for key in value:
            self._plain(names, key, (*path, key), at_key=True)
        return {key: self._value(named, inner, (*path, key)) for key, inner in value.items()}

    def _plain(self, field_type: FieldType, value: Any, path: KeyPath, *, at_key: bool = False) -> Any:
        try:
            read = msgspec.convert(_lenient(field_type, value), field_type.annotation)
        except msgspec.ValidationError as error:
            self._mistake(path, _wanted(field_type, value, str(error)), at_key=at_key)
            return field_type.placeholder
        if isinstance(read, str) and not all(re.fullmatch(one["pattern"], read) for one in _patterns(field_type)):
            self._mistake(path, _wanted(field_type, value), at_key=at_key)
            return field_type.placeholder
        return read


_SWITCH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def switch(value: Any) -> bool | None:
    """The boolean that a value of a profile means, or None."""
    if isinstance(value, bool):
        return value
    return _SWITCH.get(value.lower()) if isinstance(value, str) else None


def _lenient(field_type: FieldType, value: Any) -> Any:
    """``value`` as the builtin type that its field wants, if it is written like one."""
    if not isinstance(value, str):
        return value
    if bool in field_type.kinds and (meant := switch(value)) is not None:
        return meant
    if int in field_type.kinds and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        return int(value)
    return str(value)


def _patterns(field_type: FieldType) -> list[dict[str, Any]]:
    return [meta.extra for meta in field_type.meta if meta.extra]


def _wanted(field_type: FieldType, value: Any, found: str = "") -> str:
    """The sentence for the person who wrote the profile; ``found`` is msgspec's, if it has any."""
    kinds = field_type.kinds
    if field_type.words:
        return _wanted_one_of([*(("true", "false") if bool in kinds else ()), *field_type.words], value)
    if ">=" in found or "<=" in found:
        bound = "at least" if ">=" in found else "at most"
        return f"wanted a number of {bound} {found.rpartition('= ')[2]}, found {_shown(value)}"
    in_words = [one["wanted"] for one in _patterns(field_type)]
    wanted = "true or false" if bool in kinds else "a whole number" if int in kinds else "text"
    wanted = in_words[0] if in_words else wanted
    return f"wanted {wanted}, found {_shown(value)}{_QUOTES if str in kinds and _is_number(value) else ''}"


# YAML read a number where the user wrote text of digits; its leading zeros are lost.
_QUOTES = "; write it in quotes"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _wanted_one_of(words: list[str], value: Any) -> str:
    return f"wanted one of {', '.join(words)}; found {_shown(value)}{_suggestion(str(value), words)}"


def _unknown_key(key: str, structs: tuple[type[Model], ...], value: Any) -> str:
    from sevlaunch.profile.other_keys import INSTEAD, NOT_HERE

    if key in NOT_HERE:
        return f"unknown key {key!r}: {NOT_HERE[key]}"
    others = [word for kind in structs if key in kind.__struct_encode_fields__ for word in type_of(kind, _TAG).words]
    if others:
        instead = INSTEAD.get((value[_TAG], key))
        other = f"unknown key {key!r} for type {value[_TAG]}: it is for type {' and '.join(others)}"
        return f"{other}; {instead}" if instead else other
    known = known_keys(structs, value)
    return f"unknown key {key!r}" + (_suggestion(key, known) or f"; known here: {', '.join(known)}")


def _suggestion(found: str, known: list[str]) -> str:
    close = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _shown(value: object) -> str:
    text = repr(str(value) if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
