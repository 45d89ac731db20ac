"""The example of SUSE's guide becomes the guest of profiles/sles15-sev.yaml, and starts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sevlaunch.host.model import Host
from sevlaunch.plan.formats import lines
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, VERSIONS, Command, qemu_binary_of
from tests.libvirt.support import SUSE, became, imported, profile_of
from tests.plan.test_golden import GOLDEN

OLD = "pc-q35-2.11"


@pytest.mark.parametrize("version", VERSIONS)
def test_it_renders_the_same_guest_as_the_profile_here(version: str) -> None:
    host = Host.load(HOSTS / f"milan-qemu-{version}.json")
    assert host.qemu is not None
    result = imported(SUSE.read_bytes(), host.qemu.machines)
    plan = resolve(loads(result.text, name="sles15-sev-guest"), host)
    # Text that is in no file has another folder for what outlives the guest.
    rendered = lines(plan).replace(plan.state_folder.name, "OF-THE-PROFILE") + "\n"
    golden = (GOLDEN / f"milan-qemu-{version}/sles15-sev.args").read_text()
    if OLD in host.qemu.machines:
        assert f"-machine {OLD}," in rendered
        rendered = rendered.replace(f"-machine {OLD},", "-machine q35,")
    assert rendered == golden


def test_a_machine_type_that_this_qemu_has_no_more_is_mapped_with_a_note() -> None:
    gone = imported(SUSE.read_bytes(), ["q35", "pc-q35-11.1"])
    assert profile_of(gone).machine == "q35"
    assert became(gone, "os/type@machine") == [("corrected", f"this QEMU has no machine type {OLD}")]
    assert re.search(rf"^machine: q35  # .*no machine type {OLD}$", gone.text, re.MULTILINE)
    there = imported(SUSE.read_bytes(), ["q35", OLD])
    assert profile_of(there).machine == OLD
    assert became(there, "os/type@machine") == [("carried", "")]


def test_nothing_of_it_is_lost() -> None:
    result = imported(SUSE.read_bytes())
    assert result.works
    assert result.lost == ()
    assert result.counts["carried"] > 30


@pytest.mark.parametrize("version", VERSIONS)
def test_with_firmware_and_a_disk_that_exist_it_starts_in_a_rehearsal(
    version: str, sevlaunch: Command, base: Path
) -> None:
    needs.rehearsal()
    code, template = needs.ovmf()
    (base / "vars.fd").write_bytes(template.read_bytes())
    (base / "disk.raw").write_bytes(bytes(1 << 20))
    xml = SUSE.read_text().replace("4194304", "262144")
    for before, after in (
        (OLD, "q35"),
        ("/usr/share/qemu/ovmf-x86_64-ms-4m-code.bin", str(code)),
        ("/var/lib/libvirt/qemu/nvram/sles15-sev-guest_VARS.fd", str(base / "vars.fd")),
        ("/vmimages/sev-guest-disk.raw", str(base / "disk.raw")),
    ):
        assert before in xml
        xml = xml.replace(before, after)
    (base / "suse.xml").write_text(xml)
    sevlaunch("import", base / "suse.xml", "-o", base / "suse.yaml", "--strict")
    qemu = ("--set", f"qemu.binary={qemu_binary_of(version)}")
    evidence = sevlaunch("up", base / "suse.yaml", "--rehearse", "--paused", "--format", "json", *qemu).json
    assert (evidence["state"], evidence["sev"]["type"], evidence["sev"]["policy"]) == ("paused", "sev", 0x33)
    assert (evidence["sev"]["state"], evidence["firmware"]["path"]) == ("launch-secret", str(code))
    assert evidence["measurement"]
    sevlaunch("down", "suse", "--now")
    assert sevlaunch.left_behind() == []
