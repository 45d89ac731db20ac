"""The JSON Schema of a profile, for editors."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from sevlaunch.profile.loader import SHORT_FORMS, SWITCHES
from sevlaunch.profile.model import Model, Profile
from sevlaunch.profile.model.base import attribute_of
from sevlaunch.profile.validation import field_types, placeholder, required_keys


def profile_schema() -> dict[str, Any]:
    """The schema of what a profile file may hold, short forms included."""
    definitions: dict[str, Any] = {}
    schema = _mapping(Profile, definitions)
    properties = schema["properties"]
    for key, long_key in SHORT_FORMS.items():
        properties[key] = {
            "anyOf": [_short_form(key, long_key, definitions), properties[key]],
            "description": f"short form: the value of {key}.{long_key}",
        }
    for key in SWITCHES:
        properties[key] = {"anyOf": [{"type": "boolean"}, properties[key]]}
    properties["firmware"] = {"anyOf": [{"const": "auto"}, properties["firmware"]]}
    properties["cpus"] = {"type": "integer", "minimum": 1, "description": "short form of cpu.count"}
    properties["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "profiles that this one builds on",
    }
    # Left out, the name is the file's stem.
    del schema["required"]
    return _document(schema, "sevlaunch profile", definitions)


def model_schema(kind: type[Model], title: str) -> dict[str, Any]:
    """The schema of a file of another kind, which has no short forms."""
    definitions: dict[str, Any] = {}
    return _document(_mapping(kind, definitions), title, definitions)


def _document(schema: dict[str, Any], title: str, definitions: dict[str, Any]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": title,
        "$defs": definitions,
    }


def _short_form(key: str, long_key: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """What the key of the long form may be; for a union, the words that tell its members apart."""
    structs = field_types(Profile)[key].structs
    if len(structs) > 1:
        return {"enum": [word for kind in structs for word in field_types(kind)[long_key].words]}
    found: dict[str, Any] = definitions[structs[0].__name__]["properties"][long_key]
    return found


def _mapping(kind: type[Model], definitions: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"title": kind.__name__, "type": "object", "description": kind.__doc__, "properties": {}}
    required, defaults = required_keys(kind), placeholder(kind)
    for key, field_type in field_types(kind).items():
        property_ = _schema_of(field_type.annotation, definitions)
        if key in required:
            schema.setdefault("required", []).append(key)
        elif (default := getattr(defaults, attribute_of(key))) not in ([], {}):
            property_ = {**property_, "default": msgspec.to_builtins(default)}
        schema["properties"][key] = property_
    if kind.one_of:
        schema["oneOf"] = [{"required": [key]} for key in kind.one_of]
    return {**schema, "additionalProperties": False}


def _schema_of(annotation: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin = get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Model):
        if annotation.__name__ not in definitions:
            definitions[annotation.__name__] = _mapping(annotation, definitions)
        return {"$ref": f"#/$defs/{annotation.__name__}"}
    if annotation is NoneType:
        return {"type": "null"}
    if origin in (Union, UnionType):
        return {"anyOf": [_schema_of(member, definitions) for member in get_args(annotation)]}
    if origin is list:
        return {"type": "array", "items": _schema_of(get_args(annotation)[0], definitions)}
    if origin is dict:
        names, named = (_schema_of(part, definitions) for part in get_args(annotation))
        return {"type": "object", "propertyNames": names, "additionalProperties": named}
    if origin is Annotated:
        inner = annotation.__origin__
        structured = get_origin(inner) in (Union, UnionType, list, dict)
        schema = _schema_of(inner, definitions) if structured else msgspec.json.schema(annotation)
        for meta in annotation.__metadata__:
            if isinstance(meta, msgspec.Meta):
                schema |= meta.extra_json_schema or {}
                schema |= {"description": meta.description} if meta.description else {}
        return schema
    return msgspec.json.schema(annotation)
