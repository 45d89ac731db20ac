"""scripts/compare-libvirt: libvirt's command line beside sevlaunch's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.conftest import HOSTS, ROOT
from tests.libvirt.support import SEV, SUSE, domain

HOST = HOSTS / "milan-qemu-10.0.json"
DISK = (
    "<disk type='file'><driver name='qemu' type='qcow2' cache='none' discard='unmap' iommu='on'/>"
    "<source file='/images/a.qcow2'/><target dev='vda' bus='virtio'/></disk>"
)
# What libvirt 11.3 says of this disk.
ARGUMENTS = """LC_ALL=C \\
/usr/bin/qemu-system-x86_64 \\
-machine q35,usb=off,confidential-guest-support=lsec0 \\
-m size=1048576k \\
-blockdev '{"driver":"file","filename":"/images/a.qcow2","node-name":"s","discard":"unmap",\
"cache":{"direct":true,"no-flush":false}}' \\
-blockdev '{"node-name":"f","read-only":false,"discard":"unmap","cache":{"direct":true,"no-flush":false},\
"driver":"qcow2","file":"s"}' \\
-device '{"driver":"virtio-blk-pci","iommu_platform":true,"bus":"pci.1","addr":"0x0","drive":"f","id":"virtio-disk0",\
"bootindex":1,"write-cache":"on"}' \\
-device '{"driver":"pcie-root-port","port":8,"chassis":1,"id":"pci.1","bus":"pcie.0","addr":"0x1"}' \\
-object '{"qom-type":"sev-guest","id":"lsec0","cbitpos":47,"reduced-phys-bits":1,"policy":51}' \\
-msg timestamp=on
"""


def compare(*arguments: str | Path, path: str = os.environ["PATH"]) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts/compare_libvirt.py"), *map(str, arguments), "--host", str(HOST)],
        env={"PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


def by_item(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """The items that it printed as JSON."""
    assert done.returncode == 0, done.stderr
    return {one["item"]: one for one in json.loads(done.stdout)}


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    """A SEV domain, and a command line of libvirt's for it."""
    security = SEV.replace("<policy>", "<cbitpos>47</cbitpos><reducedPhysBits>1</reducedPhysBits><policy>")
    xml, arguments = tmp_path / "d.xml", tmp_path / "d.args"
    xml.write_text(domain(DISK, os="<boot dev='hd'/>", before=security))
    arguments.write_text(ARGUMENTS)
    return xml, arguments


def test_two_spellings_of_one_guest_are_the_same(saved: tuple[Path, Path]) -> None:
    found = by_item(compare(saved[0], "--args", saved[1], "--format", "json"))
    for item in ("security", "memory"):
        assert found[item]["differences"] == {}, item
    assert found["virtio-blk-pci"]["differences"] == {"disable-legacy": [None, "on"]}
    assert found["virtio-blk-pci"]["sevlaunch"]["file"] == "/images/a.qcow2"
    assert found["machine"]["libvirt"]["encrypted"] == found["machine"]["sevlaunch"]["encrypted"] == "on"
    assert found["pcie-root-port"]["sevlaunch"] is None
    assert found["locked memory"]["libvirt"] is None


@pytest.mark.parametrize(
    ("before", "after", "item", "differences"),
    [
        ('"policy":51', '"policy":3', "security", {"policy": ["3", "51"]}),
        ("size=1048576k", "size=2097152k", "memory", {"size": ["2G", "1G"]}),
        (
            '"iommu_platform":true,',
            "",
            "virtio-blk-pci",
            {"iommu_platform": [None, "on"], "disable-legacy": [None, "on"]},
        ),
        ("a.qcow2", "b.qcow2", "virtio-blk-pci", {"file": ["/images/b.qcow2", "/images/a.qcow2"]}),
    ],
)
def test_a_difference_is_named(
    before: str, after: str, item: str, differences: dict[str, Any], saved: tuple[Path, Path]
) -> None:
    saved[1].write_text(ARGUMENTS.replace(before, after))
    found = by_item(compare(saved[0], "--args", saved[1], "--format", "json"))
    assert found[item]["differences"].items() >= differences.items()


def test_people_read_which_are_the_same_and_why_others_are_not(saved: tuple[Path, Path]) -> None:
    lines = compare(saved[0], "--args", saved[1]).stdout.splitlines()
    assert any(line.startswith("same") and "security" in line for line in lines)
    assert any(line.startswith("only libvirt") and "(libvirt puts each device behind a port" in line for line in lines)
    assert any("disable-legacy: libvirt says nothing, sevlaunch 'on'  (iommu_platform" in line for line in lines)


def test_without_libvirt_it_says_so(tmp_path: Path) -> None:
    done = compare(SUSE, path=str(tmp_path))
    assert done.returncode == 3
    assert "wanted virsh (Debian: libvirt-clients and libvirt-daemon-driver-qemu)" in done.stderr


def test_the_libvirt_of_this_machine_agrees_about_suses_guest() -> None:
    if shutil.which("virsh") is None or not list(Path("/usr/lib").glob("*/libvirt/connection-driver/*_qemu.so")):
        pytest.skip("no libvirt: the packages libvirt-clients and libvirt-daemon-driver-qemu have it")
    needs.program("qemu-system-x86_64", "qemu-system-x86")
    needs.program("unshare", "util-linux")
    done = compare(SUSE, "--format", "json")
    if "unshare" in done.stderr:
        pytest.skip(f"no user namespace can be had here: {done.stderr.strip()}")
    found = by_item(done)
    for item in ("accel", "memory", "locked memory", "firmware", "variables"):
        assert found[item]["differences"] == {}, item
    for item in ("virtio-balloon-pci", "virtio-rng-pci"):
        assert found[item]["differences"] == {"disable-legacy": [None, "on"]}, item
    assert set(found["virtio-blk-pci"]["differences"]) <= {"disable-legacy", "discard"}
    assert found["qxl-vga"]["differences"].keys() <= {"vram64_size_mb"}
