"""The command line as a whole: exit codes, what goes where, completion, no tracebacks."""

from __future__ import annotations

import json
import os
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from sevlaunch import __version__
from sevlaunch.cli.app import _only_listed, command_line
from sevlaunch.cli.commands import COMMANDS, GROUPS
from tests.conftest import HOSTS, PROFILES, Command, wait_until

EVERY = [
    *((name,) for names in COMMANDS.values() for name in names),
    *((group, name) for group, modules in GROUPS.items() for names in modules.values() for name in names),
]


@pytest.mark.parametrize("words", [(), *((group,) for group in GROUPS), *EVERY], ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...], sevlaunch: Command) -> None:
    text = sevlaunch(*words, "--help").stdout
    assert text.startswith(" ".join(("Usage: sevlaunch", *words, "[OPTIONS]")))
    assert sevlaunch(*words, "-h").stdout == text


def test_the_version_is_told(sevlaunch: Command) -> None:
    assert sevlaunch("--version").stdout == f"sevlaunch {__version__}\n"


def test_wrong_usage_exits_2_and_says_why_on_stderr(sevlaunch: Command) -> None:
    for arguments in (["nonsense"], ["up"], ["up", "x.yaml", "--nonsense"], ["down"], ["policy", "0xZZ"]):
        result = sevlaunch(*arguments, check=2)
        assert result.stdout == ""
        assert result.stderr
        assert "Traceback" not in result.stderr


def test_render_for_a_saved_host_needs_no_sev_here(sevlaunch: Command) -> None:
    host = HOSTS / "milan-qemu-10.0.json"
    text = sevlaunch("render", PROFILES / "sles15-sev.yaml", "--host", host, "--format", "lines").stdout
    for part in (
        "-machine q35,",
        "node-name=pflash0",
        "node-name=pflash1",
        "sev-guest,id=sev0,cbitpos=47,reduced-phys-bits=1,policy=51",
        "memory-encryption=sev0",
        "-overcommit mem-lock=on",
        "ram_size=67108864,vram_size=67108864,vgamem_mb=16,max_outputs=1",
    ):
        assert part in text
    virtio = [line for line in text.splitlines() if line.startswith("-device virtio-")]
    assert len(virtio) == 3
    assert all("disable-legacy=on,iommu_platform=on" in line for line in virtio)


def test_what_host_prints_is_what_render_takes(sevlaunch: Command, base: Path, system_qemu: str) -> None:
    saved = base / "host.json"
    saved.write_text(sevlaunch("host").stdout)
    arguments = ["render", str(PROFILES / "plain.yaml"), "--format", "json"]
    assert sevlaunch(*arguments, "--host", saved).json == sevlaunch(*arguments).json


def test_a_file_that_is_no_host_is_refused_with_the_reason(sevlaunch: Command, base: Path) -> None:
    for content in ("", "{}", "[1]", '{"schema": 99}', "\0\1"):
        file = base / "host.json"
        file.write_text(content)
        result = sevlaunch("render", PROFILES / "plain.yaml", "--host", file, check=4)
        assert "sevlaunch host" in result.stderr
        assert "Traceback" not in result.stderr


def test_a_missing_qemu_is_said_with_the_packages_that_have_it(sevlaunch: Command) -> None:
    sevlaunch.environment["PATH"] = "/nowhere"
    result = sevlaunch("up", PROFILES / "plain.yaml", check=4)
    assert "apt install qemu-system-x86" in result.stderr


def test_policy_shows_both_ways(sevlaunch: Command) -> None:
    shown = sevlaunch("policy", "0x33", "--format", "json").json
    names = ["no-debug", "no-key-sharing", "domain", "sev"]
    assert shown == {"policy": 51, "hex": "0x33", "names": names, "warnings": []}
    assert sevlaunch("policy", "no-debug,no-key-sharing,domain,sev", "--format", "json").json == shown
    assert "SEV-ES is required" in sevlaunch("policy", "0x4").stdout
    assert sevlaunch("policy", "--snp", "smt", "--format", "json").json["policy"] == 0x30000


def test_a_reader_that_goes_away_is_no_error_message(sevlaunch: Command) -> None:
    with subprocess.Popen(
        sevlaunch.argv("schema"),
        env=sevlaunch.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""


def test_an_internal_error_shows_no_traceback_unless_asked(sevlaunch: Command, base: Path) -> None:
    # A runtime folder that is a file is a HostError; the traceback comes with --debug only.
    (base / "run/sevlaunch").write_text("")
    result = sevlaunch("up", PROFILES / "plain.yaml", check=4)
    assert "Traceback" not in result.stderr
    assert "Traceback" in sevlaunch("--debug", "up", PROFILES / "plain.yaml", check=None).stderr


def complete(sevlaunch: Command, words: str, cwd: Path) -> list[str]:
    """What bash would be offered for ``words``."""
    done = subprocess.run(
        sevlaunch.argv(),
        env={
            **sevlaunch.environment,
            "_SEVLAUNCH_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    return done.stdout.split()


def test_the_shell_completes_guest_names_and_profiles(sevlaunch: Command, base: Path, system_qemu: str) -> None:
    sevlaunch("up", PROFILES / "plain.yaml", "--paused", "--name", "finished")
    assert complete(sevlaunch, "sevlaunch status fin", base) == ["finished"]
    assert complete(sevlaunch, "sevlaunch down fin", base) == ["finished"]
    (sevlaunch.state / "kept").mkdir(parents=True)
    assert complete(sevlaunch, "sevlaunch rm k", base) == ["kept"]
    assert complete(sevlaunch, "sevlaunch up pl", PROFILES) == ["plain.yaml"]
    assert complete(sevlaunch, "sevlaunch ssh fin", base) == ["finished"]
    (base / "finally").mkdir()
    assert complete(sevlaunch, "sevlaunch cp fin", base) == ["finished:", "finally/"]
    assert complete(sevlaunch, "sevlaunch cp finished:/", base) == []
    assert complete(sevlaunch, "sevlaunch up x --wait clo", base) == ["cloud-init"]
    assert complete(sevlaunch, "sevlaunch wait finished en", base) == ["end"]
    assert complete(sevlaunch, "sevlaunch restart finished --wait s", base) == ["ssh"]
    sevlaunch("down", "finished", "--now")


def test_results_go_to_stdout_and_nothing_else_does(sevlaunch: Command, system_qemu: str) -> None:
    result = sevlaunch("up", PROFILES / "plain.yaml", "--paused", "--format", "json")
    assert json.loads(result.stdout)["state"] == "paused"
    assert result.stderr == ""
    sevlaunch("down", "--all", "--now")


def test_the_pasted_shell_format_starts_a_guest_that_the_commands_see(sevlaunch: Command, system_qemu: str) -> None:
    script = sevlaunch("render", PROFILES / "plain.yaml").stdout
    pasted = subprocess.Popen(["bash", "-c", script], env=sevlaunch.environment, stdin=subprocess.DEVNULL, cwd="/")
    try:
        socket = sevlaunch.runtime / "plain/qemu/qmp.sock"
        wait_until(socket.exists, 30, "the monitor's socket")
        assert sevlaunch("qmp", "plain", "query-status").json["status"] == "prelaunch"
        # It is not taken for the leftover of a killed launcher.
        assert "runs already" in sevlaunch("up", PROFILES / "plain.yaml", check=1).stderr
        sevlaunch("down", "plain", "--now")
        pasted.wait(30)
    finally:
        pasted.kill()
        pasted.wait()
    assert list(sevlaunch.runtime.iterdir()) == []


def test_a_file_name_that_is_no_utf_8_is_shown_and_no_internal_error(sevlaunch: Command, base: Path) -> None:
    profile = os.fsencode(base) + b"/\xff.yaml"
    Path(os.fsdecode(profile)).write_text("nonsense: 1\n")
    done = subprocess.run(
        [*sevlaunch.argv("check"), profile], env=sevlaunch.environment, capture_output=True, cwd="/", check=False
    )
    assert done.returncode == 1, done.stderr
    assert b"unknown key 'nonsense'" in done.stdout


def commands(*words: str) -> dict[str, Any]:
    """The commands that are read for a command line, by name; those of a group, too."""
    found: dict[str, Any] = typer.main.get_command(command_line(words)).commands  # type: ignore[attr-defined]
    return found


def test_each_command_is_found_in_the_module_that_has_it_and_read_alone() -> None:
    every = [name for names in COMMANDS.values() for name in names]
    for name in every:
        assert list(commands("--debug", name, "x")) == [name]
        assert [command.callback for command in command_line([name]).registered_commands] != [_only_listed]
    for words in ([], ["--help"], ["no-such-command"]):
        assert sorted(commands(*words)) == sorted([*every, *GROUPS])
    for group, modules in GROUPS.items():
        inside = [name for names in modules.values() for name in names]
        assert list(commands(group)) == [group]
        for name in inside:
            assert list(commands(group, name, "x")[group].commands) == [name]
        for words in ([group], [group, "--help"], [group, "no-such-command"]):
            assert list(commands(*words)[group].commands) == inside


@pytest.mark.parametrize("words", [(), *((group,) for group in GROUPS)], ids=["all", *GROUPS])
def test_a_line_of_the_list_is_whole_and_leaves_out_other_names(words: tuple[str, ...], sevlaunch: Command) -> None:
    listed = sevlaunch(*words, "--help").stdout.partition("Commands:\n")[2].splitlines()
    modules = GROUPS[words[0]] if words else COMMANDS
    summaries = {name: text for names in modules.values() for name, text in names.items() if text}
    found = dict(line.split(maxsplit=1) for line in listed)
    assert found.items() >= summaries.items()
    assert list(found) == [*summaries, *(GROUPS if not words else ())]
    assert not [line for line in listed if line.endswith("...") or len(line) > 79]


def test_every_command_of_a_module_is_in_the_index() -> None:
    for index in (COMMANDS, *GROUPS.values()):
        for module, names in index.items():
            app = typer.Typer()
            import_module(f"sevlaunch.cli.{module}").register(app)
            assert {command.name: bool(command.hidden) for command in app.registered_commands} == {
                name: not text for name, text in names.items()
            }


def test_without_arguments_the_list_is_shown_as_wrong_usage(sevlaunch: Command) -> None:
    listed = sevlaunch("--help").stdout
    shown = sevlaunch(check=2)
    assert shown.stdout + shown.stderr == listed
    assert "  up  " in listed
