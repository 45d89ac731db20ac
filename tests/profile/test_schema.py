"""The JSON Schema for editors says the same as the loader."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from sevlaunch.errors import ProfileError
from sevlaunch.guest_type import GuestType
from sevlaunch.profile.loader import loads
from sevlaunch.profile.schema import profile_schema
from sevlaunch.profile.source import parse
from sevlaunch.profile.template import starting_profile
from tests.conftest import PROFILES, ROOT

SCHEMA = profile_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def values(text: str) -> Any:
    """The values of YAML text, as the loader reads them."""
    return parse(text, file="p.yaml", base=ROOT, problems=[]).plain()


def accepted(text: str) -> bool:
    """Whether the schema takes the YAML text."""
    return bool(VALIDATOR.is_valid(values(text)))


def test_it_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("file", sorted(PROFILES.glob("*.yaml")), ids=lambda file: file.name)
def test_it_takes_every_ready_profile(file: Any) -> None:
    assert list(VALIDATOR.iter_errors(values(file.read_text()))) == []


@pytest.mark.parametrize("guest_type", GuestType)
def test_it_takes_every_starting_profile(guest_type: GuestType) -> None:
    assert list(VALIDATOR.iter_errors(values(starting_profile(guest_type)))) == []


FINE = [
    "cpus: 2",
    "cpu: {count: 2}",
    "memory: 4G",
    "memory: 4294967296",
    "memory: {size: 65536 KiB, lock: auto}",
    "security: sev",
    "security: {type: sev, policy: 0x33}",
    "security: {type: sev, policy: '0x33'}",
    "security: {type: sev, policy: [sev, api-1.51]}",
    "security: {type: sev-snp, policy: [smt, abi-1.55]}",
    "security: {type: sev, cbitpos: auto}",
    "video: std",
    "video: {type: qxl, ram: 64M}",
    "rng: false",
    "balloon: true",
    "balloon: {iommu_platform: true}",
    "firmware: auto",
    "firmware: {code: a, vars: b}",
    "extends: a.yaml\nname: x",
    "extends: []",
    "networks: [{type: user, forward: [tcp:2222:22]}]",
    "qemu: {binary: auto, extra_args: [-usb]}",
    "vsock: auto",
]
WRONG = [
    "cpu: {cuont: 2}",
    "cpus: 0",
    "cpus: two",
    "cpu: {count: 0}",
    "memory: 4Q",
    "memory: [4G]",
    "memory: {size: 0}",
    "security: svm",
    "security: {type: svm}",
    "security: {policy: 0x33}",
    "security: {type: none, policy: 0x33}",
    "security: {type: sev, policy: [no-dbug]}",
    "video: cga",
    "rng: 5",
    "firmware: automatic",
    "disks: [{format: raw}]",
    "disks: {path: a}",
    "disks: [{path: a, bus: scsi}]",
    "networks: [{type: user, interface: tap0}]",
    "networks: [{type: user, forward: [22]}]",
    "networks: [{type: user, forward: ['tcp:1:1 ']}]",
    "console: vga",
    "nonsense: 1",
    "extends: 5",
]


@pytest.mark.parametrize("text", FINE)
def test_what_is_fine_is_fine_for_schema_and_loader(text: str) -> None:
    assert accepted(text)
    if "a.yaml" not in text:
        assert loads(text).profile.name in ("guest", "x")


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_wrong_for_schema_and_loader(text: str) -> None:
    assert not accepted(text)
    with pytest.raises(ProfileError):
        loads(text)


# Where a key may stand: the mapping around it as YAML, with a gap for one more key.
PLACES = [
    "{%s}",
    "{cpu: {count: 2, %s}}",
    "{memory: {size: 1G, %s}}",
    "{security: {type: sev, %s}}",
    "{security: {type: sev-snp, %s}}",
    "{security: {type: none, %s}}",
    "{boot: {%s}}",
    "{disks: [{path: a, %s}]}",
    "{networks: [{type: user, %s}]}",
    "{networks: [{type: tap, interface: t, %s}]}",
    "{firmware: {%s}}",
    "{video: {type: qxl, %s}}",
    "{shares: [{path: /s, tag: t, %s}]}",
    "{rng: {%s}}",
    "{balloon: {%s}}",
    "{qemu: {%s}}",
]
KEYS = st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True) | st.sampled_from(
    ["policy", "vars", "count", "heads", "path", "interface", "host_data", "session", "forward", "<<", "NAME"]
)


@settings(max_examples=400, deadline=None)
@given(place=st.sampled_from(PLACES), key=KEYS)
def test_a_key_that_the_schema_does_not_know_is_unknown_to_the_loader_too(place: str, key: str) -> None:
    text = place % f"{json.dumps(key)}: 1"
    unknown_here = "additionalProperties" in str([error.validator for error in leaves(values(text))])
    try:
        loads(text)
        messages = ""
    except ProfileError as error:
        messages = str(error)
    assert unknown_here == (f"unknown key {key!r}" in messages), messages


def leaves(instance: Any) -> list[Any]:
    """The innermost errors of the branches that fit best."""
    found = list(VALIDATOR.iter_errors(instance))
    inner = []
    while found:
        error = found.pop()
        if error.context:
            # Of a union, the member that names the type; of short and long form, the one of the right kind.
            wrong = {"const", "enum", "type"}
            branches: dict[int, list[Any]] = {}
            for child in error.context:
                branches.setdefault(child.schema_path[0], []).append(child)
            fitting = [
                errors
                for errors in branches.values()
                if not any(one.validator in wrong and list(one.relative_path) in ([], ["type"]) for one in errors)
            ]
            found += [one for errors in fitting for one in errors]
        else:
            inner.append(error)
    return inner
