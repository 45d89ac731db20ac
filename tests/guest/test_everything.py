"""A guest with one of each device runs on each QEMU, with interfaces and images of this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import ROOT, VERSIONS, Command, qemu_binary_of, wait_until
from tests.guest.support import JSON, with_qemu

pytestmark = pytest.mark.long

PROFILE = ROOT / "tests/everything.yaml"


def images(folder: Path, profile: str) -> None:
    """The images that the profile names, and the folder that it shares."""
    qemu_img = needs.program("qemu-img", "qemu-utils")
    for word in profile.replace(",", " ").replace("}", " ").split():
        name = Path(word)
        if name.suffix in (".raw", ".iso", ".qcow2"):
            image_format = "qcow2" if name.suffix == ".qcow2" else "raw"
            subprocess.run([qemu_img, "create", "-q", "-f", image_format, str(folder / name), "8M"], check=True)
    (folder / "shared").mkdir()


@pytest.mark.parametrize("version", VERSIONS)
def test_a_guest_with_everything_starts(
    version: str, wide_tap: str, bridge: str, macvtap: str, sevlaunch: Command
) -> None:
    for program, package in (("passt", "passt"), ("swtpm", "swtpm")):
        needs.program(program, package)
    text = PROFILE.read_text()
    for there, here in (("everytap", wide_tap), ("everybridge", bridge), ("everymac", macvtap)):
        text = text.replace(there, here)
    profile = sevlaunch.base / "everything.yaml"
    profile.write_text(text)
    images(sevlaunch.base, text)
    started = sevlaunch("up", profile, *with_qemu(qemu_binary_of(version)), *JSON).json
    assert started["state"] == "running"
    here = sevlaunch("qmp", "everything", "qom-list", '{"path": "/machine/peripheral"}').json
    networks, disks = ({f"{kind}{index}-device" for index in range(6)} for kind in ("net", "disk"))
    assert networks | disks | {"video0", "usb", "agent-bus", "console-bus"} <= {one["name"] for one in here}
    sevlaunch("down", "everything", "--now")
    wait_until(lambda: sevlaunch.left_behind() == [], what="the end of everything")
