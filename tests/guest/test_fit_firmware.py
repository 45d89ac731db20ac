"""Firmware that can't start the guest is refused before QEMU runs, and the choice tells why."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.doctor.preflight import check_files
from sevlaunch.errors import HostError, ProfileError
from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import Folders
from sevlaunch.host.model import Host
from sevlaunch.host.ovmf import firmware_image
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.formats import explain
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from sevlaunch.sevapi.ovmf import FOOTER, sev_metadata
from tests import needs
from tests.conftest import HOSTS
from tests.owner.images import ovmf


@pytest.fixture
def host(base: Path) -> Host:
    """The recorded Milan with QEMU 10.0 and folders of the test's own."""
    recorded = Host.load(HOSTS / "milan-qemu-10.0.json")
    return replace(recorded, folders=Folders(runtime=str(base / "run"), state=str(base / "state")))


@pytest.fixture
def amdsev() -> Path:
    """OVMF.amdsev.fd."""
    return needs.amdsev_image()


def plan_of(text: str, host: Host) -> Plan:
    """The plan of a profile given as text."""
    return resolve(loads(text, file="test.yaml"), host)


def test_an_image_made_for_encrypted_guests_has_all_there_is(amdsev: Path) -> None:
    image = firmware_image(amdsev, "x")
    assert image.hashes_table
    assert image.secret_area
    assert image.snp_metadata
    assert image.es_reset_vector
    assert [image.lacks_for(kind, kernel_hashes=True) for kind in GuestType if kind.encrypted] == ["", "", ""]


def test_an_entry_without_a_size_is_no_area(base: Path) -> None:
    file = base / "ovmf.fd"
    file.write_bytes(ovmf())
    whole = firmware_image(file, "x")
    assert (whole.hashes_table, whole.secret_area, whole.snp_metadata) == (True, True, True)
    file.write_bytes(ovmf(hashes_size=0, secret_area=(0x810000, 0), sections=()))
    bare = firmware_image(file, "x")
    assert bare.es_reset_vector == whole.es_reset_vector
    assert (bare.hashes_table, bare.secret_area, bare.snp_metadata) == (False, False, False)
    assert bare.lacks_for(GuestType.SEV, kernel_hashes=True) == "it has no table of hashes for kernel_hashes"


def test_ordinary_ovmf_has_no_areas_and_the_metadata_that_it_leads_to() -> None:
    code, _ = needs.ovmf()
    image = firmware_image(code, "x")
    assert image.es_reset_vector
    assert (image.hashes_table, image.secret_area) == (False, False)
    # Debian 12's has none, Debian 13's has some.
    assert image.snp_metadata == bool(sev_metadata(code.read_bytes()))
    assert image.lacks_for(GuestType.SEV, kernel_hashes=True) == "it has no table of hashes for kernel_hashes"


@pytest.mark.parametrize(
    ("security", "lacking"),
    [
        ("sev-es", "it has no SEV-ES reset vector"),
        ("sev-snp", "it has no SEV-ES reset vector and no SNP metadata"),
        ("{type: sev, kernel_hashes: true}", "it has no table of hashes for kernel_hashes"),
    ],
)
def test_an_image_that_can_not_start_the_guest_is_refused(security: str, lacking: str, host: Host, base: Path) -> None:
    image = base / "bare.fd"
    image.write_bytes(bytes(1 << 20))
    kernel = base / "vmlinuz"
    kernel.write_bytes(b"")
    text = f"name: g\nsecurity: {security}\nfirmware: {{image: {image}}}\nboot: {{kernel: {kernel}}}\n"
    with pytest.raises(HostError) as caught:
        check_files(plan_of(text, host))
    assert lacking in str(caught.value)
    check_files(plan_of(text.replace(security, "sev"), host))


def test_a_damaged_table_is_refused(host: Host, base: Path) -> None:
    content = bytearray(1 << 20)
    footer = struct.pack("<H16s", 100, FOOTER.bytes_le)
    content[-32 - len(footer) : -32] = footer
    image = base / "damaged.fd"
    image.write_bytes(content)
    with pytest.raises(HostError, match="an entry of OVMF's table has length 0"):
        check_files(plan_of(f"name: g\nsecurity: sev\nfirmware: {{image: {image}}}\n", host))


def test_secure_boot_chooses_the_enrolled_firmware_and_turns_smm_on(host: Host) -> None:
    with pytest.raises(HostError, match="has no secure boot with enrolled keys"):
        plan_of("name: g\nfirmware: {secure_boot: true}\n", host)
    secure = next(one for one in host.firmware if "secure-boot" in one.features)
    enrolled = replace(secure, file="40.json", features=[*secure.features, "enrolled-keys"])
    host = replace(host, firmware=[*host.firmware, enrolled])
    plan = plan_of("name: g\nfirmware: {secure_boot: true}\n", host)
    assert "firmware descriptor 40.json" in plan.firmware.code.reason.text
    assert "smm=on" in " ".join(argv(plan))
    assert "driver=cfi.pflash01,property=secure,value=on" in argv(plan)
    assert any("has no secure boot with enrolled keys" in line for line in plan.firmware.passed_over)
    assert "smm=on" not in " ".join(argv(plan_of("name: g\n", host)))
    with pytest.raises(ProfileError, match="secure boot needs SMM, which a sev-es guest can't have"):
        plan_of("name: g\nsecurity: sev-es\nfirmware: {secure_boot: true}\n", host)
    with pytest.raises(ProfileError, match="secure_boot chooses among the described firmwares"):
        plan_of("name: g\nfirmware: {secure_boot: true, image: /x.fd}\n", host)


def test_why_each_other_firmware_was_passed_over_is_told(host: Host) -> None:
    text = explain(plan_of("name: g\nsecurity: sev\n", host))
    for descriptor in host.firmware:
        assert descriptor.file in text


def test_attestation_with_a_writable_nvram_is_a_warning(host: Host) -> None:
    measured = "name: g\nsecurity: {type: sev, kernel_hashes: true}\nboot: {kernel: /k}\n"
    on_flash = plan_of(measured + "firmware: {code: /new/OVMF_CODE.fd, vars: /new/OVMF_VARS.fd}\n", host)
    assert any("is not measured, and the host can write to it" in warning for warning in on_flash.warnings)
    assert not any("not measured" in warning for warning in plan_of(measured, host).warnings)
    assert not any("not measured" in warning for warning in plan_of("name: g\nsecurity: sev\n", host).warnings)
