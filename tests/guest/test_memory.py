"""Memory as it is: what QEMU locks against what was counted, huge pages, a limit that holds and one that would kill."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from sevlaunch.guest.cgroup import make_cgroup
from sevlaunch.guest.folder import CGROUP, GuestFolder
from sevlaunch.host.facts import Folders
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.footprint import RECORD, Footprint, Piece
from sevlaunch.plan.memory_limits import MemoryLimit
from sevlaunch.plan.option import Choice, rule
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load
from tests import needs
from tests.conftest import Command, wait_for_console, wait_until
from tests.guest.own_kernel import passes_in_own_kernel
from tests.guest.support import JSON, PLAIN, OrdinaryUser, free_huge_pages, ordinary_user, some_qemu

MEBIBYTE = 1 << 20
LOCKED = ("--set", "memory.lock=true", "--set", "accel=tcg")
OLD_CGROUP = Path("/sys/fs/cgroup/memory")


def plan_of(*overrides: str, profile: Path = PLAIN) -> Plan:
    """The plan of a profile, on this machine."""
    return resolve(load(profile, overrides=overrides), Host.probe())


def status(pid: int, key: str) -> int:
    """A size in /proc/PID/status, in bytes."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"^{key}:\s*(\d+) kB$", text, re.MULTILINE)
    assert found, f"{key} is not in {text}"
    return int(found[1]) * 1024


def needs_free_memory(size: int) -> None:
    """Skips by name where the machine does not have that much to spare."""
    available = Host.probe().memory.available
    if available < size:
        pytest.skip(f"the test locks {size >> 20} MiB, and {available >> 20} MiB are available")


def locking_user(base: Path, options: tuple[str, ...]) -> OrdinaryUser | str:
    """An ordinary user with the counted limit on locked memory and no more, or why this machine can't have one.

    Raising the limit takes CAP_SYS_RESOURCE, which not every root has.
    """
    try:
        user = ordinary_user(base)
    except pytest.skip.Exception as reason:
        return str(reason)
    user.memlock = plan_of(*options[1::2]).memory.lock_bytes
    done = user("--version", check=None)
    return done.stderr.strip() if done.code else user


def test_an_ordinary_user_is_told_the_number_and_the_ways_to_get_it(base: Path) -> None:
    user = ordinary_user(base)
    user.memlock = 4 * MEBIBYTE
    refused = user("up", PLAIN, *LOCKED, "--set", "memory.size=8G", "--paused", check=4).stderr
    assert "over this user's limit of 4 MiB (RLIMIT_MEMLOCK): " in refused
    assert "8192 MiB guest memory + 8 MiB firmware + " in refused
    found = re.search(r"LimitMEMLOCK=(\d+)", refused)
    assert found
    assert f"hard memlock {int(found[1]) // 1024}' in /etc/security/limits.conf" in refused
    assert "hugepages" in refused
    assert user.left_behind() == []


@pytest.mark.parametrize("size", ["1G", pytest.param("8G", marks=pytest.mark.soak)])
def test_an_ordinary_user_with_the_counted_limit_and_no_more_locks_the_guest(
    size: str, base: Path, request: pytest.FixtureRequest
) -> None:
    needs_free_memory(int(size[:-1]) * 1024 * MEBIBYTE + 3072 * MEBIBYTE)
    options = (*LOCKED, "--set", f"memory.size={size}")
    user = locking_user(base, options)
    if isinstance(user, str):
        passes_in_own_kernel(request.node.nodeid, user, base, memory=(int(size[:-1]) << 30) + (4 << 30))
        return
    assert user.memlock
    pid = user("up", PLAIN, *options, "--paused", *JSON, limit=300).json["pid"]
    try:
        assert Path(f"/proc/{pid}").stat().st_uid == user.UID
        assert status(pid, "VmLck") <= user.memlock
        assert abs(status(pid, "VmLck") - user.memlock) < user.memlock / 20
    finally:
        user("down", "--all", "--now")


@pytest.mark.soak
def test_of_8_gib_as_much_is_locked_as_was_counted(sevlaunch: Command) -> None:
    needs.locked_memory(needs.REHEARSED_BYTES)
    needs_free_memory(11 << 30)
    options = (*LOCKED, "--set", "memory.size=8G")
    counted = plan_of(*options[1::2]).memory.lock_bytes
    pid = sevlaunch("up", PLAIN, *options, "--paused", *JSON, limit=300).json["pid"]
    assert status(pid, "VmLck") <= counted
    assert abs(status(pid, "VmLck") - counted) < counted / 20


@pytest.mark.parametrize("vcpus", [1, 8])
@pytest.mark.parametrize("video", ["none", "std", "qxl"])
def test_what_is_locked_is_what_was_counted(video: str, vcpus: int, qemu_binary: str, sevlaunch: Command) -> None:
    needs.locked_memory(needs.REHEARSED_BYTES)
    host = Host.probe(qemu_binary)
    assert host.qemu
    overrides = ("memory.lock=true", "accel=tcg", "memory.size=256M", f"video={video}", f"cpus={vcpus}")
    counted = resolve(load(PLAIN, overrides=overrides), host).memory.lock_bytes
    options = [word for override in (*overrides, f"qemu.binary={qemu_binary}") for word in ("--set", override)]
    pid = sevlaunch("up", PLAIN, *options, "--paused", *JSON).json["pid"]
    locked = status(pid, "VmLck")
    assert locked <= counted
    assert counted - locked < 96 * MEBIBYTE
    assert status(pid, "VmPeak") <= counted


def test_with_enough_huge_pages_it_runs_without_locking(sevlaunch: Command) -> None:
    options = ("--set", "memory={size: 128M, hugepages: 2M}", "--set", "accel=tcg", *some_qemu())
    with free_huge_pages(64):
        pid = sevlaunch("up", PLAIN, *options, "--paused", *JSON).json["pid"]
        assert status(pid, "VmLck") == 0
        assert status(pid, "HugetlbPages") == 128 * MEBIBYTE
        sevlaunch("down", "plain", "--now")


def test_with_too_few_huge_pages_it_says_how_many_are_missing(sevlaunch: Command) -> None:
    with free_huge_pages(60):
        refused = sevlaunch("up", PLAIN, "--set", "memory={size: 128M, hugepages: 2M}", check=4).stderr
    assert "wanted 64 of 2M, found 60 free: 4 are missing" in refused
    assert sevlaunch.left_behind() == []


def test_memory_comes_from_the_numa_node_that_was_asked_for(sevlaunch: Command) -> None:
    if "0" not in Host.probe().memory.nodes:
        pytest.skip("the kernel tells of no NUMA nodes")
    options = ("--set", "memory={size: 64M, nodes: [0], prealloc: true}", "--set", "accel=tcg", *some_qemu())
    pid = sevlaunch("up", PLAIN, *options, "--paused", *JSON).json["pid"]
    maps = Path(f"/proc/{pid}/numa_maps")
    if not maps.exists():
        pytest.skip("the kernel has no numa_maps")
    assert re.search(r"bind:0 .*anon=16384 ", maps.read_text())


@contextmanager
def old_cgroup(limit: int) -> Iterator[Path]:
    """A cgroup v1 with a limit on memory: the same accounting as v2's, on machines that have no v2."""
    folder = OLD_CGROUP / f"sevlaunch-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup with a memory limit can be made here: {error.strerror}")
    try:
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        yield folder
    finally:
        with suppress(ProcessLookupError):
            for pid in (folder / "cgroup.procs").read_text().split():
                os.kill(int(pid), 9)
        wait_until(lambda: not (folder / "cgroup.procs").read_text(), what="an empty cgroup")
        folder.rmdir()


def run_limited(plan: Plan) -> subprocess.Popen[bytes]:
    """QEMU with the plan's arguments below a limit; without -S, so that the guest runs."""
    plan.qemu_folder.mkdir(parents=True)
    plan.state_folder.mkdir(parents=True, exist_ok=True)
    folder = OLD_CGROUP / f"sevlaunch-test-{os.getpid()}"

    def enter() -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))

    command = [argument for argument in argv(plan) if argument != "-S"]
    with (plan.folder / "qemu.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, preexec_fn=enter)


def limited_plan(host: Host, demo: Path, command: Command) -> Plan:
    """The demo guest, which touches all its memory: Linux tests it, and prealloc fills it."""
    base = command.base
    stores = base / "vars.fd"
    folders = Folders(runtime=str(command.runtime), state=str(command.state))
    cgroup = replace(host.memory.cgroup, parent=str(base), limit=None)
    memory = replace(host.memory, cgroup=cgroup)
    overrides = (
        "memory={size: 512M, prealloc: true, hard_limit: auto}",
        "accel=tcg",
        f"firmware.nvram={stores}",
        "firmware.code=/usr/share/OVMF/OVMF_CODE_4M.fd",
    )
    _, template = needs.ovmf()
    stores.write_bytes(template.read_bytes())
    loaded = load(demo, overrides=overrides)
    return resolve(loaded, replace(host, folders=folders, memory=memory))


def test_a_counted_limit_survives_a_guest_that_touches_all_its_memory(demo: Path, sevlaunch: Command) -> None:
    plan = limited_plan(Host.probe(), demo, sevlaunch)
    assert plan.memory.limit
    size = plan.memory.limit.size.value
    with old_cgroup(size) as folder:
        process = run_limited(plan)
        try:
            wait_for_console(sevlaunch, "demo", "demo: ready", limit=300)
            peak = int((folder / "memory.max_usage_in_bytes").read_text())
            assert 512 * MEBIBYTE < peak <= size
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()


FILLER = """\
import os
fd = os.memfd_create("pages")
print("ready", flush=True)
input()
os.posix_fallocate(fd, 0, {size})
print("filled", flush=True)
input()
"""


def test_what_the_kernel_keeps_of_each_page_of_a_file_is_what_was_counted() -> None:
    """guest_memfd is such a file, and takes real SNP; a memfd has the same page cache."""
    pages = 512 * MEBIBYTE // 4096
    needs_free_memory(1024 * MEBIBYTE)
    with old_cgroup(1024 * MEBIBYTE) as folder:
        kernel = folder / "memory.kmem.usage_in_bytes"
        with subprocess.Popen(
            [sys.executable, "-c", FILLER.format(size=pages * 4096)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=lambda: (folder / "cgroup.procs").write_text(str(os.getpid())),
        ) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == b"ready\n"
            before = int(kernel.read_text())
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"filled\n"
            kept = int(kernel.read_text()) - before
            process.kill()
    # The kernel counts in steps of some pages for each processor.
    assert 8 * pages < kept + MEBIBYTE
    assert kept < RECORD * pages + MEBIBYTE


def test_a_limit_100_mib_under_the_worst_case_is_warned_of_and_one_under_the_least_refused(sevlaunch: Command) -> None:
    plan_text = sevlaunch("host").stdout
    host = msgspec.json.decode(plan_text, type=Host)
    cgroup = replace(host.memory.cgroup, parent="/sys/fs/cgroup")
    host = replace(host, memory=replace(host.memory, cgroup=cgroup))
    saved = sevlaunch.base / "host.json"
    saved.write_text(host.to_json())
    limit = resolve(load(PLAIN, overrides=["memory.hard_limit=auto"]), host).memory.limit
    assert limit
    arithmetic = "MiB = 512 MiB guest memory + "
    low = limit.size.value - 100 * MEBIBYTE
    warned = sevlaunch("render", PLAIN, "--host", saved, "--set", f"memory.hard_limit={low}").stderr
    assert f"warning: memory.hard_limit {low >> 20} MiB can kill the guest" in warned
    assert f"{limit.size.value >> 20} {arithmetic}8 MiB firmware" in warned
    refused = sevlaunch("render", PLAIN, "--host", saved, "--set", "memory.hard_limit=585M", check=3).stderr
    assert "a limit of 585 MiB kills a guest that uses its memory" in refused
    assert f"586 {arithmetic}74 MiB QEMU itself at least" in refused
    sevlaunch("render", PLAIN, "--host", saved, "--set", f"memory.hard_limit={limit.size.value}")


def test_the_cgroup_is_made_with_its_limit_and_goes_with_the_guests_folder(base: Path) -> None:
    # A folder stands in for the file system of cgroup v2, which needs no files to be removed first.
    parent = base / "cgroup"
    parent.mkdir()
    folder = GuestFolder(base, "g")
    folder.path.mkdir()
    limit = MemoryLimit(Choice(64 * MEBIBYTE, rule("test")), Footprint((Piece("x", 64 * MEBIBYTE),)), str(parent), ())
    made = make_cgroup(folder, limit)
    assert (made / "memory.max").read_text() == str(64 * MEBIBYTE)
    assert folder.file(CGROUP).readlink() == made
    (made / "memory.max").unlink()
    folder.remove()
    assert list(base.iterdir()) == [parent]
    assert list(parent.iterdir()) == []
