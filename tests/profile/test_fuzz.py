"""Whatever stands in a file: a profile, or a refusal that can be printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sevlaunch.errors import Problem, ProfileError, UsageError
from sevlaunch.profile.loader import loads
from sevlaunch.profile.model import Profile
from sevlaunch.profile.source import parse
from sevlaunch.profile.validation import field_types, known_keys

SECTIONS = [*Profile.__struct_fields__, "extends", "cpus", "<<"]
WORDS = [
    *SECTIONS,
    *(
        key
        for section in ("cpu", "memory", "boot", "firmware", "video", "qemu")
        for key in known_keys(field_types(Profile)[section].structs, {})
    ),
]
WORDS += ["type", "path", "forward", "policy", "interface", "bridge", "tag", "sev", "sev-es", "sev-snp", "none", "auto"]
WORDS += ["user", "tap", "disk0", "-device", "vfio-pci", "-incoming", "4G", "0x33", "on", "off", "{", "a,b=c", "$X"]

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
    | st.integers(min_value=0).map(hex)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=25,
)
PROFILES = st.dictionaries(st.sampled_from(SECTIONS), TREES, min_size=1, max_size=6)

MANY = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def attempt(text: str, *overrides: str) -> None:
    """Load; any other error than the two that a user may see fails the test."""
    try:
        loads(text, file="p.yaml", base=Path("/nowhere"), overrides=overrides)
    except ProfileError as error:
        assert error.problems
        assert str(error)
        for problem in error.problems:
            assert problem.message
            assert problem.location
    except UsageError as error:
        assert overrides
        assert str(error)


@MANY
@given(PROFILES)
def test_any_tree_is_a_profile_or_refused(tree: dict[str, Any]) -> None:
    attempt(json.dumps(tree, ensure_ascii=False))


@MANY
@given(st.text(max_size=200))
def test_any_text_is_a_profile_or_refused(text: str) -> None:
    attempt(text)


@MANY
@given(
    st.lists(
        st.sampled_from([*"{}[]:,-?&*!|>'\"%@`#\n \tab01", "&a", "*a", "<<", "!!int ", "cpu: ", "\n  ", "- "]),
        max_size=60,
    ).map("".join)
)
def test_any_heap_of_yaml_signs_is_a_profile_or_refused(text: str) -> None:
    attempt(text)


@MANY
@given(st.binary(max_size=200))
def test_any_bytes_are_nodes_or_refused(content: bytes) -> None:
    problems: list[Problem] = []
    try:
        node = parse(content, file="p.yaml", base=Path("/"), problems=problems)
    except ProfileError as error:
        assert error.problems
    else:
        assert isinstance(node.value, dict)


@MANY
@given(
    st.lists(st.sampled_from(WORDS) | st.text(max_size=4) | st.integers(0, 3).map(str), min_size=1, max_size=4),
    st.text(max_size=30),
)
def test_any_override_is_applied_or_refused(path: list[str], value: str) -> None:
    attempt("name: x\ndisks: [{path: a}]\nsecurity: sev\n", f"{'.'.join(path)}={value}")


@MANY
@given(
    st.lists(
        st.text(max_size=10)
        | st.sampled_from(["-device", "-drive", "-global", "-object", "{", "if=ide", ",,", "=", "--"]),
        max_size=6,
    )
)
def test_any_extra_arguments_are_taken_or_refused(args: list[str]) -> None:
    attempt(json.dumps({"security": "sev", "qemu": {"extra_args": args}}, ensure_ascii=False))
