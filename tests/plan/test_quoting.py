"""Any text in a profile reaches a real QEMU as exactly one value: asked back from QEMU over QMP."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sevlaunch.guest.monitor import session
from sevlaunch.host.facts import Folders
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from sevlaunch.plan.command_line import argv, monitor_on
from sevlaunch.plan.option import Parameter, rule
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from sevlaunch.profile.option_values import parse_value
from tests.conftest import HOSTS, VERSIONS, qemu_binary_of

SPECIAL = ",=\"' \n\t\\$`;:&|<>*?[]{}()!#~%@^+-äß漢🙂"
EXAMPLES = 15

# A file name of at most 200 bytes (NAME_MAX is 255), a serial number of at most 20 (VIRTIO_BLK_ID_BYTES).
file_names = st.text(alphabet=SPECIAL + "ab", min_size=1, max_size=50).filter(
    lambda name: name not in (".", "..") and "/" not in name
)
serials = st.text(alphabet=SPECIAL + "ab", min_size=1, max_size=20).filter(lambda text: len(text.encode()) <= 20)
command_lines = st.text(alphabet=SPECIAL + "ab", max_size=80)


# No argument of a program can hold a NUL.
values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)


class RealQemu:
    """A QEMU version, and a host for plans that use it."""

    def __init__(self, version: str) -> None:
        self.host: Host = replace(
            Host.load(HOSTS / f"milan-qemu-{version}.json"), qemu=qemu_facts(qemu_binary_of(version))
        )


@pytest.fixture(scope="module", params=VERSIONS)
def real_qemu(request: pytest.FixtureRequest) -> RealQemu:
    """Each QEMU."""
    return RealQemu(request.param)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder whose sockets have short paths."""
    with tempfile.TemporaryDirectory(prefix="sl-", dir="/tmp") as folder:
        yield Path(folder)


def profile_text(folder: Path, **more: Any) -> str:
    """A plain profile, as JSON (which is YAML), with firmware of zeros."""
    (folder / "code.fd").write_bytes(bytes(1 << 20))
    profile = {
        "name": "quoting",
        "memory": "64M",
        "accel": "tcg",
        "rng": False,
        "firmware": {"code": str(folder / "code.fd")},
        **more,
    }
    return json.dumps(profile, ensure_ascii=False)


async def ask(real_qemu: RealQemu, text: str, folder: Path, commands: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """What QEMU, started with the profile, returns for ``commands``."""
    folders = Folders(runtime=str(folder / "run"), state=str(folder / "state"))
    plan = resolve(loads(text, base=folder), replace(real_qemu.host, folders=folders))
    plan.qemu_folder.mkdir(parents=True)
    plan.state_folder.mkdir(parents=True)
    ours, theirs = socket.socketpair()
    monitor = monitor_on("test", plan.monitor_object, rule("test"))
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [*argv(plan), "-chardev", f"socket,id=test,fd={theirs.fileno()}", *monitor.argv],
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
        text=True,
    )
    theirs.close()
    try:
        async with session(ours, limit=60) as qmp:
            return [await qmp.execute(command, arguments) for command, arguments in commands]
    except Exception as error:
        process.kill()
        assert process.stderr
        raise AssertionError(f"QEMU said: {process.stderr.read()}") from error
    finally:
        process.kill()
        process.communicate()
        ours.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=file_names, serial=serials)
@example(name="a,b=c,,d\"e'f g\nh:i", serial=",,=x, 'y\"\n")
@example(name="json:{}", serial="a,id=evil")
@example(name="-snapshot", serial="-device")
def test_a_disk_path_and_a_serial_number_arrive_whole(real_qemu: RealQemu, name: str, serial: str) -> None:
    with short_folder() as folder:
        disk = folder / name
        disk.write_bytes(bytes(1 << 16))
        text = profile_text(folder, disks=[{"path": str(disk), "format": "raw", "serial": serial}])
        block, found = asyncio.run(
            ask(
                real_qemu,
                text,
                folder,
                [
                    ("query-named-block-nodes", {}),
                    ("qom-get", {"path": "/machine/peripheral/disk0-device", "property": "serial"}),
                ],
            )
        )
    # QEMU tells block nodes' files as JSON where they need quoting: the file itself is the plain node below.
    files = {node["image"]["filename"] for node in block if node["drv"] == "file"}
    assert str(disk) in files
    assert found == serial


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cmdline=command_lines)
@example(cmdline="a,b=c -S -incoming tcp:0:1 \"q\" 'r'\nnew, line")
@example(cmdline="-kernel")
def test_a_kernel_command_line_arrives_whole(real_qemu: RealQemu, cmdline: str) -> None:
    with short_folder() as folder:
        kernel = folder / "vm,linuz=1"
        kernel.write_bytes(bytes(0x201) + b"\xaa" + bytes(1 << 16))
        text = profile_text(folder, boot={"kernel": str(kernel), "cmdline": cmdline})
        found, path = asyncio.run(
            ask(
                real_qemu,
                text,
                folder,
                [
                    ("qom-get", {"path": "/machine", "property": "append"}),
                    ("qom-get", {"path": "/machine", "property": "kernel"}),
                ],
            )
        )
    assert (found or "") == cmdline
    assert path == str(kernel)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(alphabet=",=\"' \\$`;:&äß漢🙂ab", min_size=1, max_size=15).filter(lambda name: name[0] not in ".-"))
@example(name="a,process=b")
def test_a_guest_name_arrives_whole(real_qemu: RealQemu, name: str) -> None:
    with short_folder() as folder:
        (found,) = asyncio.run(ask(real_qemu, profile_text(folder, name=name), folder, [("query-name", {})]))
    assert found["name"] == name


def free_port() -> int:
    """A TCP port that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_forwards_arrive_whole_and_one_does_not_become_two(real_qemu: RealQemu) -> None:
    first, second = free_port(), free_port()
    forwards = [f"tcp:127.0.0.1:{first}:22", f"udp:{second}:53"]
    with short_folder() as folder:
        text = profile_text(folder, networks=[{"type": "user", "forward": forwards}])
        (table,) = asyncio.run(
            ask(real_qemu, text, folder, [("human-monitor-command", {"command-line": "info usernet"})])
        )
    rows = [line.split() for line in table.splitlines() if "HOST_FORWARD" in line]
    assert sorted((row[0], row[2], row[3], row[5]) for row in rows) == [
        ("TCP[HOST_FORWARD]", "127.0.0.1", str(first), "22"),
        ("UDP[HOST_FORWARD]", "127.0.0.1", str(second), "53"),
    ]


@given(st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,8}", fullmatch=True), values, min_size=1))
def test_what_is_written_as_an_option_is_read_back_the_same(properties: dict[str, str]) -> None:
    text = ",".join(str(Parameter(key, value, rule("test"))) for key, value in properties.items())
    if not text.startswith("{"):
        assert parse_value(text) == properties


def test_an_argument_is_never_more_than_one_argument(real_qemu: RealQemu) -> None:
    hostile = 'x,file.filename=/etc/passwd" -device vfio-pci\n-incoming'
    with short_folder() as folder:
        text = profile_text(folder, disks=[{"path": str(folder / hostile), "format": "raw"}])
        folders = Folders(runtime="/run/s", state="/var/s")
        plan = resolve(loads(text, base=folder), replace(real_qemu.host, folders=folders))
        holding = [argument for argument in argv(plan) if "passwd" in argument]
    assert len(holding) == 1
    assert parse_value(holding[0])["file.filename"] == os.fspath(folder / hostile)
