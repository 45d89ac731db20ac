"""io_uring: what keeps it from a process, told before QEMU starts, which may say nothing and use threads."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.host.facts import IoUringFacts
from sevlaunch.host.io_uring import io_uring_facts
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from sevlaunch.host.system import System
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS, Command
from tests.guest.filtered import IO_SETUP, IO_URING_SETUP, filtered
from tests.guest.support import PLAIN, with_qemu

DISK = "{path: d.raw, cache: none, aio: io_uring}"
FILTER = "a filter of system calls, such as a container's, forbids it"


def failing(number: int) -> Callable[[], None]:
    """A kernel that answers with this error."""

    def setup() -> None:
        raise OSError(number, os.strerror(number))

    return setup


@pytest.mark.parametrize(
    ("number", "disabled", "error"),
    [
        (errno.EPERM, "2", "kernel.io_uring_disabled is 2"),
        (errno.EPERM, "1", "kernel.io_uring_disabled is 1, and this user is not in the group of kernel.io_uring_group"),
        (errno.EPERM, "0", FILTER),
        (errno.EPERM, None, FILTER),
        (errno.ENOSYS, None, "this kernel has none, or a filter of system calls hides it"),
        (errno.ENOMEM, "0", "Cannot allocate memory"),
    ],
)
def test_why_it_can_t_be_used(number: int, disabled: str | None, error: str, tmp_path: Path) -> None:
    if disabled is not None:
        file = tmp_path / "proc/sys/kernel/io_uring_disabled"
        file.parent.mkdir(parents=True)
        file.write_text(f"{disabled}\n")
    facts = io_uring_facts(System(root=tmp_path, io_uring_setup=failing(number)))
    assert (facts.usable, facts.error) == (False, error)
    assert facts.disabled == (int(disabled) if disabled else None)


def test_this_kernel_is_asked_only_where_a_disk_takes_it(tmp_path: Path) -> None:
    assert Host.probe(runtime=tmp_path, state=tmp_path).io_uring is None
    found = Host.probe(runtime=tmp_path, state=tmp_path, io_uring=True).io_uring
    assert found is not None
    assert found.usable == (not found.error)


def test_every_qemu_tells_how_it_reads_and_writes(qemu_binary: str) -> None:
    assert qemu_facts(qemu_binary).aio == ["io_uring", "native", "threads"]


def lacking(host: Host, *, run_as: str = "") -> list[str]:
    """What the plan of a guest with such a disk lacks on a host; its warnings, where it lacks nothing."""
    text = f"name: g\nmemory: 1G\naccel: tcg\ndisks: [{DISK}]\n" + (f"run_as: {run_as}\n" if run_as else "")
    try:
        return list(resolve(loads(text, base=Path("/")), host).warnings)
    except HostError as error:
        return [problem.message for problem in error.problems]


def test_a_plan_says_what_qemu_or_the_kernel_lacks() -> None:
    milan = Host.load(HOSTS / "milan-qemu-10.0.json")
    assert milan.qemu
    without = replace(milan, qemu=replace(milan.qemu, aio=["native", "threads"]))
    assert lacking(without) == ["disks.0 asks for aio: io_uring, which QEMU 10.0.2 is built without"]
    forbidden = replace(milan, io_uring=IoUringFacts(usable=False, error="kernel.io_uring_disabled is 2", disabled=2))
    assert lacking(forbidden) == [
        "disks.0 asks for aio: io_uring, and io_uring can't be used here: kernel.io_uring_disabled is 2"
    ]
    for_a_group = replace(milan, io_uring=IoUringFacts(usable=True, disabled=1))
    assert lacking(for_a_group) == []
    assert [warning for warning in lacking(for_a_group, run_as="nobody") if "nobody has it only as a member" in warning]


def test_a_container_that_forbids_it_is_told_before_qemu_starts(sevlaunch: Command, qemu_binary: str) -> None:
    disk = sevlaunch.base / "d.raw"
    disk.write_bytes(bytes(1 << 20))
    options = ("--set", f"disks=[{{path: {disk}, cache: none, aio: io_uring}}]", *with_qemu(qemu_binary), "--paused")
    argv = filtered(IO_URING_SETUP, errno.EPERM, sevlaunch.argv("up", PLAIN, "--set", "accel=tcg", *options))
    done = subprocess.run(argv, env=sevlaunch.environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 4, done.stderr
    assert FILTER in done.stderr
    assert "use aio: threads" in done.stderr
    assert sevlaunch.left_behind() == []
    if io_uring_facts(System()).usable:
        sevlaunch("up", PLAIN, "--set", "accel=tcg", *options)
        sevlaunch("down", "plain", "--now")


@pytest.mark.parametrize(
    ("call", "number", "aio", "words"),
    [
        (IO_URING_SETUP, errno.EPERM, "io_uring", "keeps io_uring from this process"),
        (IO_URING_SETUP, errno.ENOSYS, "io_uring", "keeps io_uring from this process"),
        (IO_SETUP, errno.EAGAIN, "native", "raise fs.aio-max-nr"),
    ],
)
def test_what_a_qemu_says_has_its_hint(
    call: int, number: int, aio: str, words: str, qemu_binary: str, tmp_path: Path
) -> None:
    disk = tmp_path / "d.raw"
    disk.write_bytes(bytes(1 << 20))
    node = f"driver=file,node-name=d,aio={aio},cache.direct=on,filename={disk}"
    command = [qemu_binary, "-machine", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    done = subprocess.run(
        filtered(call, number, [*command, "-blockdev", node]),
        input='{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n',
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Some fall back to threads, and say so nowhere that a start would see.
    assert done.returncode == 0 or words in hint_for(done.stderr.splitlines(), done.returncode), done.stderr
