"""What is loaded before QEMU starts makes it start later. What a command loads at all: tests/test_api_surface.py."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.conftest import Command
from tests.guest.support import PLAIN

TCG = ("--set", "accel=tcg")
# Prints the modules that are there when the command starts its first program, and those that are there at its end.
REPORT = """
import atexit, subprocess, sys
report = sys.argv[0]
def tell(moment):
    with open(f"{report}.{moment}", "x") as file:
        print(*sorted(sys.modules), file=file)
begin = subprocess.Popen.__init__
def popen(self, *arguments, **options):
    subprocess.Popen.__init__ = begin
    tell("program")
    begin(self, *arguments, **options)
subprocess.Popen.__init__ = popen
atexit.register(tell, "end")
from sevlaunch.cli.main import main
main()
"""
# What is for guests that have a disk, or are encrypted, or have one of the rarer keys.
FOR_FEW = {
    *(f"sevlaunch.profile.{name}" for name in ("board_rules", "device_rules", "disk_rules", "dma_rules", "extra_args")),
    *(
        f"sevlaunch.profile.{name}"
        for name in ("boot_rules", "direct_boot_rules", "first_boot_rules", "initdata_rules")
    ),
    *(f"sevlaunch.profile.{name}" for name in ("io_threads", "verity_rules")),
    *(f"sevlaunch.plan.{name}" for name in ("board", "channels", "disk", "disk_image", "disks", "display")),
    *(f"sevlaunch.plan.{name}" for name in ("first_boot", "folder_disk", "iommu", "overlay", "passt", "shares")),
    *(f"sevlaunch.host.{name}" for name in ("boot", "cpuid", "helpers", "images", "io_uring", "platform", "verity")),
    *(f"sevlaunch.plan.{name}" for name in ("direct_boot", "initdata", "security", "tpm", "video")),
    *("sevlaunch.profile.model.first_boot", "sevlaunch.profile.model.initdata"),
    *(f"sevlaunch.profile.{name}_values" for name in ("initdata", "seed")),
    *("ctypes", "sevlaunch.flows.images", "sevlaunch.image.inspection"),
}
# What a start takes once QEMU runs, and boots.
WHILE_QEMU_BOOTS = {
    "asyncio",
    "qemu.qmp",
    "sevlaunch.guest.launch",
    "sevlaunch.guest.guest",
    "sevlaunch.guest.evidence",
}
# Ways into a guest, what is said of one that failed, what QEMU is asked once.
NOT_FOR_A_START = {
    *(f"sevlaunch.guest.{name}" for name in ("agent", "console", "known_failures", "serial", "ssh", "taps", "watch")),
    *("sevlaunch.host.qemu_answers", "tempfile"),
}


def modules(command: Command, report: Path, *arguments: str | Path) -> None:
    """Run ``sevlaunch ARGUMENTS``; REPORT.program and REPORT.end get the modules that it has loaded by then."""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = {str(report)!r}\n{REPORT}", *map(str, arguments)],
        env=command.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_plain_guest_waits_for_nothing_that_few_guests_have(sevlaunch: Command, base: Path) -> None:
    # What a QEMU knows is asked of it once.
    sevlaunch("render", PLAIN, *TCG)
    modules(sevlaunch, base / "render", "render", PLAIN, *TCG)
    found = set((base / "render.end").read_text().split())
    assert {"sevlaunch.plan.resolve", "sevlaunch.profile.rules"} <= found
    assert not found & (FOR_FEW | WHILE_QEMU_BOOTS | NOT_FOR_A_START)


def test_qemu_starts_before_what_talks_to_it_is_loaded(sevlaunch: Command, base: Path) -> None:
    """asyncio and QMP take as long to load as QEMU to start."""
    sevlaunch("render", PLAIN, *TCG)
    modules(sevlaunch, base / "up", "up", PLAIN, "--paused", *TCG)
    sevlaunch("down", "plain", "--now")
    found = set((base / "up.program").read_text().split())
    assert "sevlaunch.guest.starting" in found
    assert not found & (FOR_FEW | WHILE_QEMU_BOOTS | NOT_FOR_A_START)
    found = set((base / "up.end").read_text().split())
    assert found >= WHILE_QEMU_BOOTS
    assert not found & NOT_FOR_A_START


def test_what_is_looked_for_is_there() -> None:
    assert [name for name in FOR_FEW | WHILE_QEMU_BOOTS | NOT_FOR_A_START if find_spec(name) is None] == []
