"""Plain data -> Profile, with every mistake at once.

What is wrong gives way to its default, or to something harmless, and the rest is read on: a rule about two values is
then reported in the same run as a wrong third one.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec

from sevlaunch.errors import Problem
from sevlaunch.profile.fields import Instead, Reader
from sevlaunch.profile.model import Model, Profile
from sevlaunch.profile.source import MAX_DIGITS
from sevlaunch.shapes import bare_pattern

if TYPE_CHECKING:
    from sevlaunch.profile.loader import Sources

Path_ = tuple[str | int, ...]

# Keys that people bring from elsewhere, and what there is instead.
NOT_HERE = {
    "hostdev": "host device assignment is not supported: an encrypted guest can't have it",
    "hostdevs": "host device assignment is not supported: an encrypted guest can't have it",
    "vfio": "host device assignment is not supported: an encrypted guest can't have it",
    "incoming": "an encrypted guest can't be restored or migrated; it can only be started afresh",
    "loadvm": "an encrypted guest can't be restored or migrated; it can only be started afresh",
    "snapshot": "an encrypted guest can't be restored or migrated; it can only be started afresh",
    "<<": "YAML merge keys are not supported; use extends",
}
# Keys of a profile file that are gone before it is read here.
_LOADERS_KEYS = ("extends", "cpus")
# The key that tells the kinds of a mapping apart, where there are several.
_TAG = "type"


class Shape(NamedTuple):
    """What the type of a field says of its values."""

    annotation: Any
    kinds: tuple[Any, ...]
    optional: bool
    reader: Reader | None
    instead: Instead | None
    words: tuple[str, ...]
    structs: tuple[type[Model], ...]
    element: Shape | None
    meta: tuple[msgspec.Meta, ...]

    @property
    def harmless(self) -> Any:
        """A value for this field that no rule minds."""
        if self.instead:
            return self.instead.value
        if self.optional:
            return None
        if self.structs:
            return harmless(self.structs[0])
        if self.element:
            return []
        return self.words[0] if self.words else 0 if int in self.kinds else ""


@functools.cache
def shapes(kind: type[Model]) -> dict[str, Shape]:
    """The fields of a kind of mapping."""
    annotations: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        annotations |= inspect.get_annotations(base)
    return {key: shape_of(annotations[key]) for key in kind.__struct_fields__}


def shape_of(annotation: Any) -> Shape:
    """What an annotation says."""
    members = list(_members(annotation))
    extras = [extra for _, extras in members for extra in extras]
    plain = [member for member, _ in members]
    element = next((get_args(member)[0] for member in plain if get_origin(member) is list), None)
    return Shape(
        annotation,
        tuple(plain),
        NoneType in plain,
        next((extra for extra in extras if isinstance(extra, Reader)), None),
        next((extra for extra in extras if isinstance(extra, Instead)), None),
        tuple(word for member in plain if get_origin(member) is Literal for word in get_args(member)),
        tuple(member for member in plain if isinstance(member, type) and issubclass(member, Model)),
        shape_of(element) if element is not None else None,
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


def harmless(kind: type[Model]) -> Model:
    """A mapping of this kind that no rule minds."""
    return kind(**{key: shapes(kind)[key].harmless for key in _required(kind)})


def _required(kind: type[Model]) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        if field.required:
            yield field.name


def known_keys(structs: tuple[type[Model], ...], value: Any) -> list[str]:
    """The keys that a mapping of one of these kinds may have; which one ``value`` says."""
    kind = _kind(structs, value)
    keys = list(shapes(kind)) if kind else [_TAG]
    return [*_LOADERS_KEYS, *keys] if kind is Profile else keys


def _kind(structs: tuple[type[Model], ...], value: Any) -> type[Model] | None:
    if len(structs) == 1:
        return structs[0]
    return next((kind for kind in structs if value.get(_TAG) in shapes(kind)[_TAG].words), None)


class Reading:
    """One reading of a profile: what was wrong, and the paths of what was."""

    def __init__(self, sources: Sources) -> None:
        self.problems: list[Problem] = []
        self.wrong: set[Path_] = set()
        self._sources = sources

    def profile(self, data: dict[str, Any]) -> Profile:
        """The profile; where something is wrong, with something harmless in its place."""
        profile: Profile = self._struct((Profile,), data, ())
        return profile

    def _mistake(self, path: Path_, message: str, *, at_key: bool = False, wrong: Path_ | None = None) -> None:
        location = str(self._sources.nearest(path, key=at_key))
        self.problems.append(Problem(message, location=location, path=".".join(map(str, path))))
        self.wrong.add(path if wrong is None else wrong)

    def _struct(self, structs: tuple[type[Model], ...], value: Any, path: Path_) -> Any:
        if not isinstance(value, dict):
            self._mistake(path, f"wanted a mapping of keys and values, found {_shown(value)}")
            return harmless(structs[0])
        kind = _kind(structs, value)
        if kind is None:
            # Without its type, nothing in a mapping means anything.
            tag = (*path, _TAG)
            if _TAG in value:
                words = [word for one in structs for word in shapes(one)[_TAG].words]
                self._mistake(tag, _wanted_one_of(words, value[_TAG]), wrong=path)
            else:
                self._mistake(tag, f"{_TAG} is required", wrong=path)
            return harmless(structs[0])
        fields = shapes(kind)
        found: dict[str, Any] = {}
        for key, inner in value.items():
            place = (*path, key)
            if key not in fields:
                self._mistake(place, _unknown_key(key, known_keys(structs, value)), at_key=True)
                continue
            read = self._value(fields[key], inner, place)
            if place not in self.wrong:
                found[key] = read
        for key in _required(kind):
            if key not in found:
                found[key] = fields[key].harmless
                if key not in value:
                    self._mistake((*path, key), f"{key} is required")
        return kind(**found)

    def _value(self, shape: Shape, value: Any, path: Path_) -> Any:
        if value is None and shape.optional:
            return None
        if shape.structs:
            return self._struct(shape.structs, value, path)
        if shape.element:
            return self._list(shape.element, value, path)
        if shape.reader is None:
            return self._plain(shape, value, path)
        if isinstance(value, str) and value in shape.words:
            return str(value)
        try:
            return shape.reader.read(value)
        except ValueError as error:
            self._mistake(path, str(error))
        return shape.harmless

    def _list(self, element: Shape, value: Any, path: Path_) -> list[Any]:
        if not isinstance(value, list):
            self._mistake(path, f"wanted a list, found {_shown(value)}")
            return []
        return [self._value(element, inner, (*path, index)) for index, inner in enumerate(value)]

    def _plain(self, shape: Shape, value: Any, path: Path_) -> Any:
        try:
            return msgspec.convert(_lenient(shape, value), shape.annotation)
        except msgspec.ValidationError as error:
            self._mistake(path, _wanted(shape, value, str(error)))
        return shape.harmless


_SWITCH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}


def switch(value: Any) -> bool | None:
    """The boolean that a value of a profile means, or None."""
    if isinstance(value, bool):
        return value
    return _SWITCH.get(value.lower()) if isinstance(value, str) else None


def _lenient(shape: Shape, value: Any) -> Any:
    """``value`` as the builtin type that its field wants, if it is written like one."""
    if not isinstance(value, str):
        return value
    if bool in shape.kinds and (meant := switch(value)) is not None:
        return meant
    if int in shape.kinds and value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS:
        return int(value)
    return str(value)


def _wanted(shape: Shape, value: Any, found: str) -> str:
    """The sentence for the person who wrote the profile; ``found`` is msgspec's."""
    kinds = shape.kinds
    if shape.words:
        return _wanted_one_of([*(("true", "false") if bool in kinds else ()), *shape.words], value)
    if ">=" in found or "<=" in found:
        bound = "at least" if ">=" in found else "at most"
        return f"wanted a number of {bound} {found.rpartition('= ')[2]}, found {_shown(value)}"
    patterns = [bare_pattern(meta.pattern) for meta in shape.meta if meta.pattern]
    if patterns and isinstance(value, str):
        return f"wanted text that matches {patterns[0]}, found {_shown(value)}"
    wanted = "true or false" if bool in kinds else "a whole number" if int in kinds else "text"
    return f"wanted {wanted}, found {_shown(value)}"


def _wanted_one_of(words: list[str], value: Any) -> str:
    return f"wanted one of {', '.join(words)}; found {_shown(value)}{_suggestion(str(value), words)}"


def _unknown_key(key: str, known: list[str]) -> str:
    if key in NOT_HERE:
        return f"unknown key {key!r}: {NOT_HERE[key]}"
    return f"unknown key {key!r}" + (_suggestion(key, known) or f"; known here: {', '.join(known)}")


def _suggestion(found: str, known: list[str]) -> str:
    close = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _shown(value: object) -> str:
    text = repr(str(value) if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."
