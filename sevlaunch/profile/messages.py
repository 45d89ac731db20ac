"""What pydantic found -> a sentence for the person who wrote the profile."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sevlaunch.errors import Problem
from sevlaunch.profile.model import Profile

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

    from sevlaunch.profile.loader import Sources

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

# pydantic's kinds of error, in the words of a profile; the names in braces are pydantic's.
_WANTED = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "model_type": "a mapping of keys and values",
    "model_attributes_type": "a mapping of keys and values",
    "dict_type": "a mapping of keys and values",
    "greater_than_equal": "a number of at least {ge}",
    "less_than_equal": "a number of at most {le}",
    "less_than": "a number below {lt}",
}


def translate(details: ErrorDetails, data: Any, sources: Sources) -> tuple[tuple[str | int, ...], Problem]:
    """The path in the profile that pydantic's error is about, and the problem for the user."""
    path = _real_path(details["loc"], data)
    dotted = ".".join(str(part) for part in path)
    kind = details["type"]
    found = details.get("input")
    context: Mapping[str, Any] = details.get("ctx", {})
    location = str(sources.nearest(path, key=kind == "extra_forbidden"))
    if kind == "extra_forbidden":
        message = _unknown_key(path, data)
    elif kind in ("missing", "union_tag_not_found"):
        tag = str(context.get("discriminator", "")).strip("'")
        path = (*path, tag) if tag else path
        dotted = ".".join(str(part) for part in path)
        message = f"{path[-1]} is required"
    elif kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags", "")).replace("'", "")
        choices = [choice.strip() for choice in expected.replace(" or ", ", ").split(",")]
        if kind == "union_tag_invalid":
            path = (*path, str(context["discriminator"]).strip("'"))
            dotted = ".".join(str(part) for part in path)
            location = str(sources.nearest(path))
            found = context.get("tag")
        message = f"wanted one of {', '.join(choices)}; found {_shown(found)}{_suggestion(str(found), choices)}"
    elif kind == "string_pattern_mismatch":
        message = f"wanted text that matches {context['pattern']}, found {_shown(found)}"
    elif kind == "profile":
        message = details["msg"]
    elif kind in _WANTED:
        message = f"wanted {_WANTED[kind].format_map(context)}, found {_shown(found)}"
    else:
        message = f"{_decapitalised(details['msg'])}, found {_shown(found)}"
    return path, Problem(message, location=location, path=dotted)


def _real_path(location: tuple[str | int, ...], data: Any) -> tuple[str | int, ...]:
    """pydantic's location without the parts that name a branch of a union, which don't stand in the profile."""
    path: list[str | int] = []
    inner = data
    for index, part in enumerate(location):
        last = index == len(location) - 1
        if isinstance(inner, dict) and part in inner:
            inner = inner[str(part)]
            path.append(part)
        elif isinstance(inner, list) and isinstance(part, int) and part < len(inner):
            inner = inner[part]
            path.append(part)
        elif last and isinstance(inner, dict) and _is_field_name(part):
            path.append(part)
    return tuple(path)


def _is_field_name(part: str | int) -> bool:
    # A branch's name comes after the field that it belongs to only when the field's value is not a mapping.
    return isinstance(part, str) and part.isidentifier()


def _unknown_key(path: tuple[str | int, ...], data: Any) -> str:
    key = str(path[-1])
    if key in NOT_HERE:
        return f"unknown key {key!r}: {NOT_HERE[key]}"
    known = list(known_keys(path[:-1], data))
    suggestion = _suggestion(key, known)
    return f"unknown key {key!r}" + (suggestion or f"; known here: {', '.join(known)}")


def known_keys(path: tuple[str | int, ...], data: Any) -> Iterator[str]:
    """The keys that the mapping at ``path`` may have; the kind of a union's member is looked up in ``data``."""
    schema = _profile_schema()
    branch: dict[str, Any] = schema
    inner = data
    for part in path:
        branch = branch["properties"][part] if isinstance(part, str) else branch["items"]
        inner = inner[part]
        branch = _resolved(branch, schema, inner)
    if not path:
        yield from ("extends", "cpus")
    yield from branch.get("properties", {})


@functools.cache
def _profile_schema() -> dict[str, Any]:
    # It takes milliseconds to make, and a file may have thousands of unknown keys.
    return Profile.model_json_schema()


def _resolved(branch: dict[str, Any], schema: dict[str, Any], value: Any) -> dict[str, Any]:
    """``branch`` behind its references and, in a union, the member that ``value`` is."""
    if "$ref" in branch:
        return _resolved(schema["$defs"][branch["$ref"].rsplit("/", 1)[1]], schema, value)
    if "discriminator" in branch and isinstance(value, dict):
        reference = branch["discriminator"]["mapping"].get(value.get("type"))
        return _resolved({"$ref": reference}, schema, value) if reference else branch
    for option in branch.get("anyOf", []):
        if isinstance(value, dict) and ("$ref" in option or option.get("type") == "object"):
            return _resolved(option, schema, value)
    return branch


def _suggestion(found: str, known: list[str]) -> str:
    close = difflib.get_close_matches(found, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _shown(value: object) -> str:
    text = repr(str(value) if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _decapitalised(text: str) -> str:
    return text[:1].lower() + text[1:].removesuffix(".")
