"""What the documents name is there: keys, commands and their options, files, what the import knows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sevlaunch.cli.app import command_line
from sevlaunch.cli.commands import GROUPS
from sevlaunch.profile.schema import profile_schema
from tests.conftest import ROOT, VERSIONS

DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
DOCUMENT = (ROOT / "docs/coming-from-libvirt.md").read_text()


def table(heading: str) -> list[tuple[str, str]]:
    """The rows of the table below a heading."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [(left, right) for left, right in rows[2:]]


def code(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", text)


def schema_of(key: str) -> list[dict[str, Any]]:
    """The schemas that a dotted key can have; none if there is no such key."""
    schema = profile_schema()
    found = [schema]
    for part in key.split("."):
        found = [below for one in found for below in below_part(expanded(one, schema), part)]
    return found


def expanded(one: dict[str, Any], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema without references and choices."""
    if "$ref" in one:
        return expanded(schema["$defs"][one["$ref"].rsplit("/", 1)[1]], schema)
    choices = [*one.get("anyOf", []), *one.get("oneOf", []), *one.get("allOf", [])]
    return [one, *(deeper for choice in choices for deeper in expanded(choice, schema))]


def below_part(choices: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    """The schemas of a key or a list's entries."""
    if part.isdigit():
        return [one["items"] for one in choices if "items" in one]
    return [one["properties"][part] for one in choices if part in one.get("properties", {})]


# Of the project, whose files documents name.
FOLDERS = ("docs", "examples", "profiles", "requirements", "scripts", "tests")
KEYS = sorted({key for _, right in table("Elements") for key in code(right)})
COMMANDS = sorted(
    {text for file in DOCUMENTS for text in re.findall(r"(?:`|\$ )sevlaunch ([a-z][^`\n]*)", file.read_text())}
)


def test_there_are_keys_and_commands_to_look_for() -> None:
    assert len(KEYS) > 50
    assert len(COMMANDS) > 15
    assert schema_of("memory.no_such_key") == []


@pytest.mark.parametrize("key", KEYS)
def test_a_profile_key_exists(key: str) -> None:
    assert schema_of(key), f"no key {key} in a profile"


@pytest.mark.parametrize("text", COMMANDS)
def test_a_command_and_its_options_exist(text: str) -> None:
    words = shlex.split(text.split("|")[0], comments=True)
    command = typer.main.get_command(command_line(words[:2])).commands[words[0]]  # type: ignore[attr-defined]
    if words[0] in GROUPS and words[1:]:
        command = command.commands[words[1]]
    options = {name for parameter in command.params for name in parameter.opts}
    # What follows is another program's.
    words = words[: words.index("--")] if "--" in words else words
    assert {word for word in words[1:] if word.startswith("-") and word != "-"} <= options


@pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)
def test_files_that_are_named_exist(file: Path) -> None:
    text = file.read_text()
    named = {ROOT / name for name in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[^`\s]+)", text)}
    linked = {file.parent / name for name in re.findall(r"\]\(([^)#:]+)\)", text)}
    assert [path for path in named | linked if not path.exists()] == []


def test_scripts_are_named_where_one_looks_for_them() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    scripts = [path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix]
    assert [name for name in scripts if f"`scripts/{name}`" not in text] == []


def test_the_versions_of_qemu_are_those_of_the_tests() -> None:
    *most, last = VERSIONS
    assert f"Tested with QEMU {', '.join(most)} and {last}." in (ROOT / "README.md").read_text()


def test_every_section_of_a_profile_that_a_domain_can_fill_is_named() -> None:
    named = {key.partition(".")[0] for key in KEYS}
    # Whom QEMU runs as is in libvirt's qemu.conf, how large a log grows in virtlogd's; the journal takes no consoles.
    # For a first boot, a domain has disks, files of fw_cfg and OEM strings, of which it does not say what they are for.
    elsewhere = {"extends", "cpus", "run_as", "console_log", "console_journal", "first_boot", "initdata", "ignition"}
    elsewhere |= {"credentials"}
    assert named == set(profile_schema()["properties"]) - elsewhere
