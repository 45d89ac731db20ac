"""What a mistake is called: in the terms of who wrote the profile, with what to write instead, and no pattern."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.profile.cpu_models import COMPLEX_INDEXING
from sevlaunch.profile.loader import loads
from sevlaunch.profile.model import Model, Profile
from sevlaunch.profile.other_keys import INSTEAD
from sevlaunch.profile.validation import FieldType, field_types


def mistakes(text: str) -> list[tuple[str, str]]:
    """Path and message of each mistake in a profile."""
    try:
        loads(text)
    except ProfileError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("+x2apic", "x2apic=on"),
        ("-svm", "svm=off"),
        ("host-phys-bits", "host-phys-bits=on"),
        ("+sse4.1", "sse4.1=on"),
        ("+xsave_opt", "xsave_opt=on"),
    ],
)
def test_a_cpu_flag_is_answered_with_the_property_to_write(written: str, instead: str) -> None:
    text = "cpu: {model: EPYC-v4, features: [FEATURE]}\n"
    assert mistakes(text.replace("FEATURE", f'"{written}"')) == [("cpu.features.0", f"write {written!r} as {instead}")]
    assert mistakes(text.replace("FEATURE", instead)) == []


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("cpu: {features: ['a b']}", "cpu.features.0", "wanted a CPU property such as host-phys-bits=on, found 'a b'"),
        (
            "cpu: {features: [5]}",
            "cpu.features.0",
            "wanted a CPU property such as host-phys-bits=on, found 5; write it",
        ),
        (
            "cpu: {model: 'EPYC-v4,+avx'}",
            "cpu.model",
            "wanted the name of a CPU model such as EPYC-v4, with its flags in",
        ),
        ("cpu: EPYC-v4", "cpu", "wanted a mapping of keys and values, found 'EPYC-v4'; write {model: EPYC-v4}"),
        ("name: 0123", "name", "found 123; write it in quotes"),
        ("name: 1e3", "name", "found 1000.0; write it in quotes"),
        ("disks: [{path: a, serial: 0012345}]", "disks.0.serial", "wanted text, found 12345; write it in quotes"),
        (
            "machine: 7.2",
            "machine",
            "wanted q35, or a versioned name such as pc-q35-7.2, found 7.2; write it in quotes",
        ),
        ("machine: 'q 35'", "machine", "wanted q35, or a versioned name such as pc-q35-7.2, found 'q 35'"),
        ("uuid: 12345", "uuid", "wanted a UUID such as those of uuidgen, found 12345; write it in quotes"),
        ("networks: [{type: tap, interface: 'a b'}]", "networks.0.interface", "wanted the name of a network interface"),
        ("boot: {order: [hd0]}", "boot.order.0", "wanted a device such as disk0 or net0, found 'hd0'"),
        ("shares: [{path: /a, tag: 'a b'}]", "shares.0.tag", "wanted 1 to 36 letters, digits, dots"),
        ("run_as: 'a b'", "run_as", "wanted the name of a user, found 'a b'"),
    ],
)
def test_what_is_wanted_is_said_in_words(text: str, path: str, message: str) -> None:
    ((found_path, found),) = mistakes(f"{text}\n")
    assert found_path == path
    assert message in found


def with_patterns(kind: type[Model]) -> list[tuple[str, FieldType]]:
    """The fields, at any depth, whose text has to match a regular expression and has no parser to say so."""
    found = []
    for key, field in field_types(kind).items():
        elements = [one for one in (field, field.element) if one is not None]
        found += [
            (f"{kind.__name__}.{key}", one)
            for one in elements
            if not one.parser and any(meta.extra for meta in one.meta)
        ]
        for one in elements:
            for struct in one.structs:
                found += with_patterns(struct)
    return found


def test_no_message_is_a_regular_expression() -> None:
    fields = with_patterns(Profile)
    assert len(fields) > 5
    for name, field in fields:
        (wanted,) = [meta.extra["wanted"] for meta in field.meta if meta.extra]
        assert re.fullmatch(r"[a-z0-9][^\[\]\\]+", wanted), name


def test_a_launch_session_of_an_snp_guest_is_answered_with_what_it_has_instead() -> None:
    found = mistakes("security: {type: sev-snp, policy: 0x30000, session: vm_session.b64, dh_cert: vm_godh.b64}\n")
    assert [path for path, _ in found] == ["security.session", "security.dh_cert"]
    for path, message in found:
        key = path.rpartition(".")[2]
        assert message.startswith(f"unknown key '{key}' for type sev-snp: it is for type sev and sev-es; ")
        assert "host_data or id_block" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "security: {type: sev, host_data: a}",
            "unknown key 'host_data' for type sev: it is for type sev-snp; the launch",
        ),
        (
            "security: {type: none, policy: 3}",
            "unknown key 'policy' for type none: it is for type sev and sev-es and sev-snp",
        ),
        (
            "networks: [{type: tap, interface: t, forward: []}]",
            "for type tap: it is for type user and passt; the network",
        ),
        ("security: {type: sev-snp, host_dat: a}", "unknown key 'host_dat'; did you mean 'host_data'?"),
    ],
)
def test_a_key_of_another_type_is_known_as_such(text: str, message: str) -> None:
    ((_, found),) = mistakes(f"{text}\n")
    assert message in found


def test_what_is_said_instead_is_about_keys_that_there_are() -> None:
    structs = [one for field in field_types(Profile).values() for one in (*field.structs, *_element_structs(field))]
    for kind, key in INSTEAD:
        own = [
            struct for struct in structs if "type" in field_types(struct) and kind in field_types(struct)["type"].words
        ]
        assert own
        assert all(key not in field_types(struct) for struct in own)
        assert any(key in field_types(struct) for struct in structs)


def _element_structs(field: FieldType) -> tuple[type[Model], ...]:
    return field.element.structs if field.element else ()


@pytest.mark.parametrize("model", COMPLEX_INDEXING)
def test_an_snp_guest_gets_no_model_that_the_secure_processor_refuses(model: str) -> None:
    text = f"cpu: {{model: {model}, count: 12}}\nmemory: 50G\nsecurity: TYPE\n"
    ((path, message),) = mistakes(text.replace("TYPE", "sev-snp"))
    assert path == "cpu.model"
    assert f"a sev-snp guest can't have {model}: " in message
    assert f"use {COMPLEX_INDEXING[model]}, or leave model at auto" in message
    assert mistakes(text.replace("TYPE", "sev-es")) == []
    assert mistakes(text.replace("TYPE", "sev-snp").replace(model, COMPLEX_INDEXING[model])) == []
    assert mistakes(text.replace("TYPE", "sev-snp").replace("count", "features: [host-cache-info=on], count")) == []


def test_qemu_agrees_which_models_say_complex_indexing(qemu_binary: str) -> None:
    defined = answers(qemu_binary, [{"execute": "query-cpu-definitions"}])[0]
    known = {model["name"] for model in defined if model["name"].startswith("EPYC")}
    aliases = {model["name"]: model["alias-of"] for model in defined if "alias-of" in model}
    assert known & COMPLEX_INDEXING.keys()
    for name in known & COMPLEX_INDEXING.keys():
        assert aliases.get(name, name) in COMPLEX_INDEXING
    # Each model that is recommended is a later version of what it replaces, and no alias.
    for replacement in set(COMPLEX_INDEXING.values()) & known:
        assert replacement not in aliases
        assert replacement not in COMPLEX_INDEXING


def answers(binary: str, commands: list[dict[str, object]]) -> list[list[dict[str, str]]]:
    """What a QEMU for q35 answers to QMP commands."""
    asked = [{"execute": "qmp_capabilities"}, *commands, {"execute": "quit"}]
    done = subprocess.run(
        [binary, "-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"],
        input="\n".join(map(json.dumps, asked)),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [answer["return"] for answer in found if "return" in answer][1:-1]
