"""Every mistake of a profile at once, each at its line and column, through the real command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import HOSTS, PROFILES, Command

HOST = HOSTS / "milan-qemu-10.0.json"

TEN_MISTAKES = """\
name: ten
machine: pc-i440fx-7.2
cpu:
  count: many
  cuont: 4
memory: 4Q
security:
  type: sev
  policy: 0x133
  cbitpos: 12
disks:
  - {path: a.raw, bus: ide}
  - {path: b.raw, cache: fast}
console: serial
console: none
qemu:
  extra_args: [-device, "vfio-pci,host=01:00.0"]
"""

# Line, column, path and how the message starts.
FOUND = [
    "2:10: machine: an encrypted guest needs a q35 machine",
    "4:10: cpu.count: wanted a whole number, found 'many'",
    "5:3: cpu.cuont: unknown key 'cuont'; did you mean 'count'?",
    "6:9: memory.size: wanted a size such as 4G, 512M or 65536K, found '4Q'",
    "9:11: security.policy: policy 0x133 sets reserved bit 8, which must be 0",
    "10:12: security.cbitpos: wanted a number from 32 to 63, found 12",
    "12:24: disks.0.bus: an encrypted guest can't have IDE disks",
    "13:26: disks.1.cache: wanted one of writeback, none, writethrough, directsync, unsafe; found 'fast'",
    "15:1: duplicate key 'console'",
    "17:25: qemu.extra_args.1: vfio-pci: sevlaunch can't assign host devices to an encrypted guest yet",
]


@pytest.fixture
def ten(base: Path) -> Path:
    """A profile with ten different mistakes."""
    file = base / "ten.yaml"
    file.write_text(TEN_MISTAKES)
    return file


def assert_ten_lines(text: str, file: Path) -> None:
    """The ten mistakes, in the order of the file, and nothing else but hints."""
    lines = [line for line in text.splitlines() if line.startswith(str(file))]
    assert [line.startswith(f"{file}:{start}") for line, start in zip(lines, FOUND, strict=True)] == [True] * 10, text


def test_check_prints_ten_lines_and_exits_1(ten: Path, sevlaunch: Command) -> None:
    result = sevlaunch("check", ten, check=1)
    assert_ten_lines(result.stdout, ten)
    assert len(result.stdout.splitlines()) == 10
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [["up"], ["render", "--host", str(HOST)], ["up", "--rehearse"]])
def test_a_command_that_needs_the_profile_exits_3(arguments: list[str], ten: Path, sevlaunch: Command) -> None:
    command, *options = arguments
    result = sevlaunch(command, ten, *options, check=3)
    assert_ten_lines(result.stderr.replace("sevlaunch: ", ""), ten)
    assert result.stdout == ""
    assert sevlaunch.left_behind() == []


def test_check_as_json_has_the_same_ten(ten: Path, sevlaunch: Command) -> None:
    (result,) = sevlaunch("check", ten, "--format", "json", check=1).json
    assert (result["profile"], result["ok"]) == (str(ten), False)
    assert [set(problem) for problem in result["problems"]] == [{"message", "location", "path", "hint"}] * 10
    for problem, start in zip(result["problems"], FOUND, strict=True):
        text = ": ".join(part for part in (problem["location"], problem["path"], problem["message"]) if part)
        assert text.startswith(f"{ten}:{start}")


def test_each_mistake_is_found_alone_too(sevlaunch: Command, base: Path) -> None:
    # Repairing one line must take away that finding and no other.
    repaired = {
        2: "machine: q35",
        4: "  count: 4",
        5: "  cores: 4",
        6: "memory: 4G",
        9: "  policy: 0x33",
        10: "  cbitpos: 51",
        12: "  - {path: a.raw, bus: virtio-blk}",
        13: "  - {path: b.raw, cache: none}",
        15: "balloon: true",
        17: "  extra_args: []",
    }
    files = []
    for number, line in repaired.items():
        lines = TEN_MISTAKES.splitlines()
        lines[number - 1] = line
        files.append(base / f"without-{number}.yaml")
        files[-1].write_text("\n".join(lines) + "\n")
    results = sevlaunch("check", *files, "--format", "json", check=1).json
    for number, result in zip(repaired, results, strict=True):
        found = {int(re.findall(r":(\d+):\d+$", problem["location"])[0]) for problem in result["problems"]}
        assert found == set(repaired) - {number}


def test_several_profiles_are_checked_in_one_run(ten: Path, base: Path, sevlaunch: Command) -> None:
    good = PROFILES / "sev.yaml"
    missing = base / "missing.yaml"
    result = sevlaunch("check", good, ten, missing, check=1)
    lines = result.stdout.splitlines()
    assert lines[0] == f"{good}: ok"
    assert lines[-1] == f"{missing}: can't read the profile: No such file or directory"
    assert len(lines) == 12
    as_json = sevlaunch("check", good, ten, missing, "--format", "json", check=1).json
    assert [entry["ok"] for entry in as_json] == [True, False, False]
    assert [len(entry["problems"]) for entry in as_json] == [0, 10, 1]


def test_good_profiles_exit_0(sevlaunch: Command) -> None:
    files = sorted(PROFILES.glob("*.yaml"))
    assert sevlaunch("check", *files).stdout.splitlines() == [f"{file}: ok" for file in files]


def test_a_folder_and_a_missing_file_are_refused_in_a_line(base: Path, sevlaunch: Command) -> None:
    assert sevlaunch("check", base, check=1).stdout == f"{base}: can't read the profile: Is a directory\n"
    missing = base / "no.yaml"
    assert "No such file" in sevlaunch("render", missing, "--host", HOST, check=3).stderr


def test_a_mistake_in_set_is_shown_with_the_option(base: Path, sevlaunch: Command) -> None:
    result = sevlaunch("check", PROFILES / "sev.yaml", "--set", "cpu.count=0", check=1)
    assert result.stdout == "--set cpu.count=0: cpu.count: wanted a number of at least 1, found 0\n"
    assert "wanted --set PATH=VALUE" in sevlaunch("check", PROFILES / "sev.yaml", "--set", "x", check=2).stderr
