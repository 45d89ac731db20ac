"""Real QEMUs go through real SEV-SNP launches; sev-snp-measure judges the digest, X.509 the report."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace
from sevsnpmeasure.guest import calc_launch_digest
from sevsnpmeasure.sev_mode import SevMode

from sevlaunch.api import launch
from sevlaunch.host.model import Host
from sevlaunch.plan.option import Choice, rule
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load
from sevlaunch.sevapi.id_block import IdAuthentication, IdBlock, key_digest
from sevlaunch.sevapi.measurement import MEASURE_BYTES, measure
from sevlaunch.sevapi.report import Report, is_signed_by
from tests import needs
from tests.conftest import PROFILES, Command, qemu_binary_of
from tests.rehearsal.owner import make_session, rehearsed, share_platform

SNP_VERSIONS = ("10.0", "11.1")
POLICY = 0x30000
# CPUID leaf 1, EAX, of EPYC-v4.
EPYC = 0x800F12


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


def expected_digest(
    vcpus: int, *, mode: SevMode = SevMode.SEV_SNP, hashes: tuple[str, str, str] = ("", "", "")
) -> bytes:
    """What sev-snp-measure says."""
    return digest_with(needs.amdsev_image(), vcpus, mode=mode, hashes=hashes)


def digest_with(
    image: Path, vcpus: int, *, mode: SevMode = SevMode.SEV_SNP, hashes: tuple[str, str, str] = ("", "", "")
) -> bytes:
    """The same for another image."""
    features = 1 if mode is SevMode.SEV_SNP else 0
    digest: bytes = calc_launch_digest(mode, vcpus, EPYC, str(image), *hashes, features)
    return digest


def finished(command: Command) -> dict[str, Any]:
    """The evidence after the launch."""
    assert command("resume", "sev-snp", "--format", "json").json["sev"]["state"] == "running"
    evidence: dict[str, Any] = command("evidence", "sev-snp").json
    return evidence


def report_of(evidence: dict[str, Any]) -> Report:
    """The report in the evidence; its chain verifies, and its certificates say what they are."""
    content = base64.b64decode(evidence["report"])
    vcek, ask, ark = (x509.load_der_x509_certificate(base64.b64decode(one)) for one in evidence["certificates"])
    for certificate, issuer in ((vcek, ask), (ask, ark), (ark, ark)):
        certificate.verify_directly_issued_by(issuer)
        assert "REHEARSAL" in certificate.subject.rfc4514_string()
    key = vcek.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert is_signed_by(content, key)
    report = Report.from_bytes(content)
    hardware_id = vcek.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.4.1.3704.1.4"))
    assert hardware_id.value.public_bytes() == report.chip_id
    return report


# More than 255 take a split interrupt controller, and interrupts with wider addresses.
@pytest.mark.parametrize("vcpus", [1, 4, 300])
@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_the_digest_is_that_of_sev_snp_measure(version: str, vcpus: int, sevlaunch: Command) -> None:
    evidence = rehearsed(sevlaunch, "sev-snp", version, None, vcpus=vcpus)
    assert (evidence["sev"]["state"], evidence["sev"]["policy"]) == ("launch-update", POLICY)
    assert evidence["measurement"] is None
    assert "report" not in evidence
    evidence = finished(sevlaunch)
    assert evidence["rehearsal"] is True
    report = report_of(evidence)
    assert report.measurement == expected_digest(vcpus)
    assert (report.policy, report.host_data) == (POLICY, bytes(32))
    assert report.report_data.rstrip(b"\0") == b"REHEARSAL: memory is NOT encrypted"
    sevlaunch("down", "sev-snp", "--now")
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("version", SNP_VERSIONS)
async def test_its_memory_is_beside_the_backend_which_would_cost_it_again(version: str, sevlaunch: Command) -> None:
    """Which is why memory.prealloc and memory.lock are refused: profile/memory_rules.py."""
    share_platform(sevlaunch)
    size = 128 << 20
    overrides = [f"firmware.image={needs.amdsev_image()}", f"memory={size}"]
    host = Host.probe(qemu_binary_of(version), runtime=sevlaunch.runtime, state=sevlaunch.state)
    plan = resolve(load(PROFILES / "sev-snp.yaml", overrides=overrides), host, rehearse=True)
    peaks = []
    for filled in (False, True):
        memory = replace(plan.memory, prealloc=Choice(filled, rule("test")))
        async with launch(replace(plan, memory=memory), paused=True) as guest:
            folder = Path(f"/proc/{guest.pid}")
            files = [file for file in (folder / "fd").iterdir() if "memfd" in str(file.readlink())]
            # What KVM keeps for the guest, which QEMU does not map.
            assert size in [file.stat().st_size for file in files]
            [peak] = re.findall(r"^VmHWM:\s*(\d+) kB$", (folder / "status").read_text(), re.MULTILINE)
            peaks.append(int(peak) * 1024)
    empty, full = peaks
    assert empty < size < full
    assert full - empty > size * 0.9


@pytest.mark.parametrize("suite", ["12", "13", "sid"])
def test_a_debians_own_general_image_is_launched(suite: str, sevlaunch: Command) -> None:
    image = needs.debian_firmware(suite) / "usr/share/ovmf/OVMF.fd"
    rehearsed(sevlaunch, "sev-snp", "10.0", None, "--set", f"firmware.image={image}")
    assert report_of(finished(sevlaunch)).measurement == digest_with(image, 1)


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_kernel_hashes_and_host_data_are_in_the_report(version: str, sevlaunch: Command, base: Path) -> None:
    kernel, initrd = needs.demo_guest() / "vmlinuz", base / "initrd"
    initrd.write_bytes(b"initrd" * 1000)
    host_data = base64.b64encode(bytes(range(32))).decode()
    rehearsed(
        sevlaunch,
        "sev-snp",
        version,
        None,
        "--set",
        "security.kernel_hashes=true",
        "--set",
        f"security.host_data={host_data}",
        "--set",
        f"boot={{kernel: {kernel}, initrd: {initrd}, cmdline: console=ttyS0}}",
    )
    report = report_of(finished(sevlaunch))
    assert report.measurement == expected_digest(1, hashes=(str(kernel), str(initrd), "console=ttyS0"))
    assert report.host_data == bytes(range(32))


def identity(base: Path, block: IdBlock, *, wrong_signature: bool = False) -> tuple[list[str], bytes, bytes]:
    """What a profile needs for an id block with an author key; the digests of both keys."""
    id_key, author_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    authentication = IdAuthentication.make(block, id_key, author_key)
    content = bytearray(authentication.to_bytes())
    if wrong_signature:
        content[64] ^= 1
    (base / "id-auth").write_bytes(content)
    (base / "id-block").write_bytes(block.to_bytes())
    overrides = [f"security.id_block={base}/id-block", f"security.id_auth={base}/id-auth"]
    overrides.append("security.author_key_enabled=true")
    options = [part for override in overrides for part in ("--set", override)]
    return options, key_digest(authentication.id_key), key_digest(authentication.author_key)


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_an_id_block_that_fits_is_in_the_report(version: str, sevlaunch: Command, base: Path) -> None:
    block = IdBlock(expected_digest(1), POLICY, family_id=b"family".ljust(16), image_id=b"image".ljust(16), guest_svn=7)
    options, id_key, author_key = identity(base, block)
    rehearsed(sevlaunch, "sev-snp", version, None, *options)
    report = report_of(finished(sevlaunch))
    assert (report.family_id, report.image_id, report.guest_svn) == (block.family_id, block.image_id, 7)
    assert (report.id_key_digest, report.author_key_digest) == (id_key, author_key)
    assert report.author_key_enabled


@pytest.mark.parametrize(
    ("digest_of", "policy", "wrong_signature", "code"),
    [
        (2, POLICY, False, "BAD_MEASUREMENT (11)"),
        (1, POLICY, True, "BAD_SIGNATURE (10)"),
    ],
)
def test_an_id_block_that_does_not_fit_stops_the_guest_at_resume(
    digest_of: int, policy: int, wrong_signature: bool, code: str, sevlaunch: Command, base: Path
) -> None:
    block = IdBlock(expected_digest(digest_of), policy)
    options, _, _ = identity(base, block, wrong_signature=wrong_signature)
    rehearsed(sevlaunch, "sev-snp", "10.0", None, *options)
    assert code in sevlaunch("resume", "sev-snp", check=5).stderr
    assert sevlaunch("status", "sev-snp", "--format", "json").json["state"] == "exited"
    sevlaunch("down", "sev-snp")
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("version", SNP_VERSIONS)
@pytest.mark.parametrize("vcpus", [1, 4])
def test_sev_es_with_init2_has_the_newer_vmsa(version: str, vcpus: int, sevlaunch: Command) -> None:
    session = make_session(sevlaunch, 0x37)
    evidence = rehearsed(sevlaunch, "sev-es", version, session, "--set", "security.legacy_vm_type=false", vcpus=vcpus)
    blob, sev = base64.b64decode(evidence["measurement"]), evidence["sev"]
    expected = measure(
        session.tik.read_bytes(),
        api_major=sev["api_major"],
        api_minor=sev["api_minor"],
        build_id=sev["build_id"],
        policy=sev["policy"],
        digest=expected_digest(vcpus, mode=SevMode.SEV_ES),
        mnonce=blob[MEASURE_BYTES:],
    )
    assert blob[:MEASURE_BYTES] == expected
    assert sevlaunch("resume", "sev-es", "--format", "json").json["sev"]["state"] == "running"


def test_a_qemu_without_snp_is_told(sevlaunch: Command) -> None:
    result = sevlaunch(
        "up",
        PROFILES / "sev-snp.yaml",
        "--rehearse",
        "--set",
        f"qemu.binary={qemu_binary_of('7.2')}",
        check=4,
    )
    assert "has no object sev-snp-guest, which came with QEMU 9.1" in result.stderr
