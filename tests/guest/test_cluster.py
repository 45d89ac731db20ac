"""The resource agent for Pacemaker: Debian's ocf-tester judges it with a real guest, one node."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT, Command
from tests.guest.support import PLAIN, kill_all, listed, qemu_processes

AGENT = ROOT / "scripts/ocf/sevlaunch"

# Numbers of the OCF resource agent API.
SUCCESS, GENERIC, CONFIGURED, INSTALLED, NOT_RUNNING = 0, 1, 6, 5, 7


@pytest.fixture
def agent(sevlaunch: Command) -> Command:
    """The command, with the agent's parameters in its environment."""
    needs.file_of("resource-agents", "/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs")
    program = sevlaunch.base / "sevlaunch"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m sevlaunch "$@"\n')
    program.chmod(0o755)
    profile = sevlaunch.base / "web.yaml"
    profile.write_text(f"extends: {PLAIN}\nmemory: 64M\nnetworks: []\naccel: tcg\n")
    sevlaunch.environment.update(
        OCF_ROOT="/usr/lib/ocf",
        OCF_RESKEY_profile=str(profile),
        OCF_RESKEY_command=str(program),
        OCF_RESKEY_shutdown_timeout="1",
        HA_RSCTMP=str(sevlaunch.base),
    )
    return sevlaunch


def act(command: Command, action: str, agent: Path = AGENT) -> int:
    """The agent's exit code."""
    done = subprocess.run(
        [str(agent), action], env=command.environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode


def test_ocf_tester_finds_nothing_wrong(agent: Command, system_qemu: str) -> None:
    tester = needs.program("ocf-tester", "resource-agents")
    needs.program("xmllint", "libxml2-utils")
    # It runs the meta-data as nobody, too: the agent has to be where everybody may read it.
    copy = agent.base / "agent"
    shutil.copy(AGENT, copy)
    agent.base.chmod(0o755)
    parameters = [
        f"{name}={agent.environment[f'OCF_RESKEY_{name}']}" for name in ("profile", "command", "shutdown_timeout")
    ]
    options = [word for parameter in parameters for word in ("-o", parameter)]
    done = subprocess.run(
        [tester, "-n", "web", *options, str(copy)],
        env=agent.environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed all tests" in done.stdout
    assert agent.left_behind() == []


def test_a_dead_guest_is_not_running_and_comes_up_again(agent: Command, system_qemu: str) -> None:
    assert act(agent, "monitor") == NOT_RUNNING
    assert act(agent, "start") == SUCCESS
    assert listed(agent) == {"web": "running"}
    assert act(agent, "monitor") == SUCCESS
    kill_all(qemu_processes(agent))
    assert act(agent, "monitor") == NOT_RUNNING
    assert act(agent, "start") == SUCCESS
    assert act(agent, "monitor") == SUCCESS
    assert act(agent, "stop") == SUCCESS
    assert act(agent, "stop") == SUCCESS
    assert act(agent, "monitor") == NOT_RUNNING
    assert agent.left_behind() == []


def test_what_can_not_run_here_is_told_from_what_runs_nowhere(agent: Command, system_qemu: str) -> None:
    profile = Path(agent.environment["OCF_RESKEY_profile"])
    text = profile.read_text()
    profile.write_text(text + "disks: [{path: missing.raw}]\n")
    assert act(agent, "start") == INSTALLED
    profile.write_text(text + "memroy: 1G\n")
    assert act(agent, "start") == CONFIGURED
    assert act(agent, "validate-all") == CONFIGURED
    profile.unlink()
    assert act(agent, "validate-all") == INSTALLED
    agent.environment["OCF_RESKEY_profile"] = ""
    assert act(agent, "validate-all") == CONFIGURED


def test_a_hanging_guest_is_an_error_and_is_stopped(agent: Command, system_qemu: str) -> None:
    assert act(agent, "start") == SUCCESS
    [pid] = qemu_processes(agent)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert act(agent, "monitor") == GENERIC
        assert act(agent, "stop") == SUCCESS
    finally:
        agent("down", "--all", "--now", check=None)
    assert agent.left_behind() == []


def test_the_agent_is_clean_shell() -> None:
    subprocess.run([needs.program("shellcheck", "shellcheck"), str(AGENT)], check=True)


# What stands in for sevlaunch; the agent can't tell from any of these whether a guest runs.
NO_ANSWER = {
    "fails": "exit 1",
    "refuses its usage": "exit 2",
    "is killed": "kill -9 $$",
    "says nothing": "exit 0",
    "prints garbage": "head -c 4096 /dev/urandom; exit 0",
    "prints half a document": """echo '{'; echo '  "name": "web",'; exit 0""",
    "shows a state of its own": """echo '  "state": "; exit 7",'; exit 0""",
    "shows a state that there is not": """echo '  "state": "fine",'; exit 0""",
    "says no on stderr alone": """echo "no guest 'web' is known here" >&2; exit 1""",
    "hangs": "exec sleep 1000",
}


@pytest.fixture
def broken(agent: Command) -> Command:
    """The agent whose command can be replaced, with little patience."""
    copy = agent.base / "agent"
    text = AGENT.read_text()
    assert "ask_limit=20\ndown_extra=35\n" in text
    copy.write_text(text.replace("ask_limit=20\ndown_extra=35\n", "ask_limit=1\ndown_extra=0\n"))
    copy.chmod(0o755)
    return agent


@pytest.mark.parametrize("action", ["monitor", "stop", "start"])
@pytest.mark.parametrize("kind", NO_ANSWER)
def test_what_is_no_answer_is_an_error(kind: str, action: str, broken: Command) -> None:
    (broken.base / "sevlaunch").write_text(f'#!/bin/sh\n[ "$1" != check ] || exit 0\n{NO_ANSWER[kind]}\n')
    assert act(broken, action, broken.base / "agent") == GENERIC


@pytest.mark.parametrize("kind", ["fails", "hangs", "prints garbage", "is missing", "knows no guest"])
def test_a_command_that_breaks_while_a_guest_runs_never_lets_another_node_start_it(
    kind: str, broken: Command, system_qemu: str
) -> None:
    agent = broken.base / "agent"
    assert act(broken, "start") == SUCCESS
    program = broken.base / "sevlaunch"
    working = program.read_text()
    if kind == "is missing":
        program.unlink()
    else:
        # The last one is the worst: it says that there is no guest, and only the lock shows that there is.
        program.write_text(f'#!/bin/sh\n[ "$1" != check ] || exit 0\n{NO_ANSWER.get(kind, "exit 10")}\n')
    assert act(broken, "monitor", agent) == GENERIC
    assert act(broken, "stop", agent) == GENERIC
    assert act(broken, "start", agent) in (GENERIC, INSTALLED)
    assert len(qemu_processes(broken)) == 1
    program.write_text(working)
    program.chmod(0o755)
    assert act(broken, "monitor") == SUCCESS
    assert act(broken, "stop") == SUCCESS
    assert broken.left_behind() == []


def test_a_node_without_sevlaunch_says_so(agent: Command) -> None:
    (agent.base / "sevlaunch").unlink()
    assert act(agent, "monitor") == INSTALLED
    assert act(agent, "stop") == GENERIC
    assert act(agent, "start") == INSTALLED
