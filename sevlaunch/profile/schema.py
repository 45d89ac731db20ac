"""The JSON Schema of a profile, for editors."""

from __future__ import annotations

from typing import Any

from sevlaunch.profile.loader import SHORT_FORMS, SWITCHES
from sevlaunch.profile.model import Profile


def profile_schema() -> dict[str, Any]:
    """The schema of what a profile file may hold, short forms included."""
    schema = Profile.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "sevlaunch profile"
    properties = schema["properties"]
    for key, long_key in SHORT_FORMS.items():
        long_form = properties[key]
        short_form = _property(schema, long_form, long_key)
        properties[key] = {
            "anyOf": [short_form, long_form],
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
    schema["required"] = [key for key in schema.get("required", []) if key != "name"]
    return schema


def _property(schema: dict[str, Any], form: dict[str, Any], key: str) -> dict[str, Any]:
    """What the property ``key`` of ``form`` may be; for a union, the values that tell its members apart."""
    if "$ref" in form:
        return _property(schema, schema["$defs"][form["$ref"].rsplit("/", 1)[1]], key)
    if "discriminator" in form:
        return {"enum": list(form["discriminator"]["mapping"])}
    for option in form.get("allOf", []):
        return _property(schema, option, key)
    found: dict[str, Any] = form["properties"][key]
    return found
