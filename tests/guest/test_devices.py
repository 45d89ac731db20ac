"""The devices that need something on the host beside QEMU: passt, virtiofs, vsock."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, Command, wait_for_console, wait_until
from tests.guest.support import started_as_a_service

PLAIN = PROFILES / "plain.yaml"


def test_passt_gives_the_guest_an_address_and_ends_with_it(demo: Path, sevlaunch: Command) -> None:
    needs.program("passt", "passt")
    sevlaunch("up", demo, "--set", "networks=[{type: passt}]")
    assert len(sevlaunch.programs()) == 2
    console = wait_for_console(sevlaunch, "demo", "demo: ready", limit=300)
    assert "demo: net eth0 " in console
    assert "10.0.2.15" not in console
    sevlaunch("down", "demo")
    assert sevlaunch.left_behind() == []


@pytest.fixture
def virtiofsd() -> None:
    """virtiofsd, with the rights that its sandbox takes."""
    if not any(Path(program).exists() for program in ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")):
        pytest.skip("virtiofsd is not installed")
    needs.root("the sandbox of virtiofsd")


def test_a_shared_folder_is_read_by_the_guest(virtiofsd: None, demo: Path, sevlaunch: Command) -> None:
    folder = sevlaunch.base / "shared"
    folder.mkdir()
    (folder / "file").write_text("from the host\n")
    sevlaunch("up", demo, "--set", f"shares=[{{path: {folder}, tag: data}}]")
    wait_for_console(sevlaunch, "demo", "demo: ready", limit=300)
    log = sevlaunch.console_logs("demo")[0]
    typed = subprocess.Popen(
        sevlaunch.argv("console", "demo"), env=sevlaunch.environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert typed.stdin
    typed.stdin.write(b"mkdir -p /m && mount -t virtiofs data /m && cat /m/file\n")
    typed.stdin.flush()
    wait_until(lambda: b"from the host\r\n" in log.read_bytes(), 60, "the file's content on the console")
    sevlaunch("down", "demo")
    typed.communicate(timeout=30)
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("name", ["a,source=etc", "a\\b"])
def test_a_folder_is_shared_whatever_its_name(name: str, virtiofsd: None, sevlaunch: Command, system_qemu: str) -> None:
    folder = sevlaunch.base / name
    folder.mkdir()
    (folder / "file").write_text("x")
    shares = json.dumps([{"path": str(folder), "tag": "data"}])
    sevlaunch("up", PLAIN, "--paused", "--set", "accel=tcg", "--set", f"shares={shares}")
    # Once QEMU is connected, the shared folder is all that virtiofsd has.
    roots = [Path(f"/proc/{pid}/root") for pid in sevlaunch.processes()]
    wait_until(lambda: any([path.name for path in root.iterdir()] == ["file"] for root in roots))
    sevlaunch("down", "plain", "--now")


def test_a_missing_program_beside_qemu_is_said_with_its_package(sevlaunch: Command, system_qemu: str) -> None:
    bin_folder = sevlaunch.base / "bin"
    bin_folder.mkdir()
    (bin_folder / "qemu-system-x86_64").symlink_to(system_qemu)
    sevlaunch.environment["PATH"] = str(bin_folder)
    result = sevlaunch("up", PLAIN, "--set", "networks=[{type: passt}]", check=4)
    assert "program passt: missing" in result.stderr
    assert "the package passt" in result.stderr


def test_vsock_without_the_kernel_module_is_said(sevlaunch: Command, system_qemu: str) -> None:
    if Path("/dev/vhost-vsock").exists():
        pytest.skip("this host has vhost_vsock")
    result = sevlaunch("up", PLAIN, "--set", "vsock=auto", check=4)
    assert "modprobe vhost_vsock" in result.stderr


def test_everything_that_is_missing_is_said_at_once(sevlaunch: Command, system_qemu: str) -> None:
    result = sevlaunch(
        "up",
        PLAIN,
        "--set",
        "disks=[{path: /no/disk}, {path: /tmp}]",
        "--set",
        "boot={kernel: /no/kernel, initrd: /no/initrd}",
        check=4,
    )
    for part in ("disk /no/disk: no such file", "disk /tmp: is a folder", "/no/kernel", "/no/initrd"):
        assert part in result.stderr
    assert sevlaunch.left_behind() == []


def test_passt_takes_the_capabilities_of_its_unit(sevlaunch: Command, system_qemu: str) -> None:
    needs.root("the unit of the system's systemd")
    needs.program("passt", "passt")
    started_as_a_service(sevlaunch, "--set", "accel=tcg", "--set", "networks=[{type: passt}]")


def test_virtiofsd_takes_the_capabilities_of_its_unit(virtiofsd: None, sevlaunch: Command, system_qemu: str) -> None:
    folder = sevlaunch.base / "shared"
    folder.mkdir()
    started_as_a_service(sevlaunch, "--set", "accel=tcg", "--set", f"shares=[{{path: {folder}, tag: data}}]")
