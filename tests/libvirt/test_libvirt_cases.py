"""libvirt's own test domains: they import, and where q35 and SEV allow it, agree with libvirt's own command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.host.model import Host
from sevlaunch.libvirt.domain import Imported
from sevlaunch.libvirt.reasons import Kind
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS, ROOT
from tests.libvirt.support import imported
from tests.published import libvirts_case, libvirts_domains

SECURITY = ("sev", "sev-direct", "sev-snp", "sev-missing-platform-info")
OPTIONS = ("disk", "net", "rng", "memballoon", "controller", "input", "video", "fs")
HOST = HOSTS / "milan-qemu-10.0.json"

Items = dict[str, dict[str, Any]]


def with_blobs_of_the_right_size(xml: str) -> str:
    """libvirt's tests have any text for the owner's files; QEMU wants 2084 and 128 bytes."""
    xml = re.sub("<dhCert>.*</dhCert>", f"<dhCert>{'A' * 2776}AAA=</dhCert>", xml)
    return re.sub("<session>.*</session>", f"<session>{'A' * 168}AAA=</session>", xml)


def compared(xml: str, arguments: Path, folder: Path) -> Items:
    """Both command lines by item, as scripts/compare-libvirt has them."""
    file = folder / "domain.xml"
    file.write_text(xml)
    command = [sys.executable, str(ROOT / "scripts/compare_libvirt.py"), str(file), "--args", str(arguments)]
    done = subprocess.run(
        [*command, "--host", str(HOST), "--format", "json"],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return {one["item"]: one for one in json.loads(done.stdout)}


@pytest.mark.parametrize("name", SECURITY)
def test_the_security_object_is_libvirts(name: str, tmp_path: Path) -> None:
    xml, arguments = libvirts_case(f"launch-security-{name}")
    found = compared(with_blobs_of_the_right_size(xml.read_text()), arguments, tmp_path)
    assert found["security"]["libvirt"]["type"] == ("sev-snp-guest" if name == "sev-snp" else "sev-guest")
    for item in ("security", "memory", "uuid", "accel"):
        assert found[item]["differences"] == {}, item
    assert found["machine"]["sevlaunch"]["encrypted"] == "on"


@pytest.mark.parametrize("name", SECURITY)
def test_what_sev_needs_is_there_whatever_libvirts_test_domain_says(name: str) -> None:
    xml, _ = libvirts_case(f"launch-security-{name}")
    result = imported(with_blobs_of_the_right_size(xml.read_text()))
    assert result.works
    text = "\n".join(arguments_for(result, Host.load(HOST)))
    assert text.count("iommu_platform=on") == text.count("-device\nvirtio")
    assert ("-overcommit\nmem-lock=on" in text) == (name != "sev-snp")
    assert re.search(r"-machine\n(pc-)?q35", text)
    # libvirt's SNP domain has its stateless firmware on pflash, where no QEMU can start it.
    assert ("-bios\n" in text) == (name in ("sev-snp", "sev-direct"))


def arguments_for(result: Imported, host: Host) -> list[str]:
    """The command line of an imported domain."""
    from sevlaunch.plan.command_line import argv

    return argv(resolve(loads(result.text, name=result.name), host))


def dma_api(items: Items, side: str, driver: str) -> list[str]:
    """iommu_platform of each device that a driver makes, in their order."""
    named = [one for item, one in items.items() if re.fullmatch(rf"{driver}( \d+)?", item)]
    return [one[side].get("iommu_platform", "off") for one in named if one[side] is not None]


# The case -> the devices in which both agree in all that the domain says of iommu.
AGREED = {
    "disk": ["virtio-blk-pci"],
    "net": ["virtio-net-pci"],
    "memballoon": ["virtio-balloon-pci"],
    "input": ["virtio-mouse-pci", "virtio-keyboard-pci"],
}


@pytest.mark.parametrize("name", AGREED)
def test_each_virtio_devices_iommu_option_is_libvirts(name: str, tmp_path: Path) -> None:
    xml, arguments = libvirts_case(f"virtio-options-{name}-iommu")
    found = compared(xml.read_text(), arguments, tmp_path)
    for driver in AGREED[name]:
        theirs = dma_api(found, "libvirt", driver)
        assert theirs
        assert dma_api(found, "sevlaunch", driver) == theirs
    # The first one in each of these domains says iommu='on', a second one iommu='off'.
    first = dma_api(found, "sevlaunch", AGREED[name][0])
    assert first == (["on", "off"] if name in ("disk", "net") else ["on"])


def test_of_two_random_number_generators_the_first_is_libvirts(tmp_path: Path) -> None:
    xml, arguments = libvirts_case("virtio-options-rng-iommu")
    found = compared(xml.read_text(), arguments, tmp_path)
    assert found["virtio-rng-pci"]["libvirt"]["iommu_platform"] == "on"
    assert found["virtio-rng-pci"]["sevlaunch"]["iommu_platform"] == "on"
    assert found["virtio-rng-pci"]["sevlaunch"]["source"] == "/dev/random"


@pytest.mark.parametrize(
    ("name", "element", "kind", "count"),
    [
        ("rng", "devices/rng", "not supported", 1),
        ("controller", "devices/controller/driver@iommu", "corrected", 2),
        ("video", "devices/video", "not supported", 1),
        ("fs", "devices/filesystem", "not supported", 2),
    ],
)
def test_what_there_is_no_device_for_is_told(name: str, element: str, kind: str, count: int) -> None:
    xml, _ = libvirts_case(f"virtio-options-{name}-iommu")
    result = imported(xml.read_bytes())
    assert result.works
    assert Counter((outcome.element, outcome.kind.value) for outcome in result.outcomes)[element, kind] == count


@pytest.mark.parametrize("name", OPTIONS)
def test_all_virtio_options_import(name: str) -> None:
    xml, _ = libvirts_case(f"virtio-options-{name}-iommu")
    assert imported(xml.read_bytes()).works


def test_libvirts_domains_for_x86_64_all_give_a_profile_or_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    files = libvirts_domains()
    assert len(files) >= 500
    counts: Counter[str] = Counter()
    for file in files:
        try:
            result = imported(file.read_bytes())
        except ProfileError as error:
            assert error.problems, file.name
            counts["domains refused"] += 1
            continue
        assert result.text.startswith("# Imported")
        assert sum(result.counts.values()) == len(result.outcomes) > 10, file.name
        assert all(outcome.reason for outcome in result.outcomes if outcome.kind is not Kind.CARRIED), file.name
        counts["domains imported"] += 1
        counts["of them with a profile that is refused"] += bool(result.problems)
        counts.update(result.counts)
    with capsys.disabled():
        print(f"\n{len(files)} domains of libvirt: {', '.join(f'{count} {what}' for what, count in counts.items())}")
    assert counts["domains imported"] > 0.95 * len(files)
    assert counts["of them with a profile that is refused"] < 0.02 * len(files)
