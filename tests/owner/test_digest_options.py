"""Options of `owner digest`: each changes the digest, or is refused; hosts of before, and other tools."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmsa import VMSA

from sevlaunch.sevapi.ovmf import SectionKind
from tests.conftest import Command
from tests.owner.images import AMDSEV_SECTIONS, RESET_EIP, ovmf

# An image that releases of sev-snp-measure before 0.0.10 understand, and what 0.0.9 computes for it: its VMSA pages are
# those of kernels before Linux 6.10.
OLD_SECTIONS = tuple(
    one for one in AMDSEV_SECTIONS if one.kind not in (SectionKind.SVSM_CAA, SectionKind.SNP_KERNEL_HASHES)
)
OLD = {
    1: "d6e1b6f545f321d1770853d495c1d3d4a0521d0c197292e502fa29d249973b8e0e3ff87173b652c92da5c4736dae87a8",
    3: "deab8c13ddfccda597ad4354ed67c521b45ba4ebc2997da01da8c6a0d61b43f29eb385aeef9ed7f078d23c401426b904",
}
OVMF_HASH = "b8d1b755ccf6761a736ec18d38837eb3a3ddc967dee38698fa95bb65a47a475979c8fb2960366214d25459c52378ed2a"
MILAN = "a00f11"


@pytest.fixture
def image(base: Path) -> Path:
    """A firmware."""
    (base / "ovmf.fd").write_bytes(ovmf(sections=OLD_SECTIONS))
    return base / "ovmf.fd"


def hexadecimal(sevlaunch: Command, image: Path, *words: str | Path) -> str:
    """The digest of a launch."""
    given = ("owner", "digest", "--firmware", image, *words, "--format", "hex")
    return sevlaunch(*given).stdout.strip()


@pytest.mark.parametrize("vcpus", OLD)
def test_an_snp_launch_on_a_kernel_before_6_10(vcpus: int, image: Path, sevlaunch: Command) -> None:
    given = ("--type", "sev-snp", "--cpu-signature", MILAN, "--vcpus", str(vcpus))
    assert hexadecimal(sevlaunch, image, *given, "--vmsa", "es-init") == OLD[vcpus]
    newer = hexadecimal(sevlaunch, image, *given)
    assert newer == hexadecimal(sevlaunch, image, *given, "--vmsa", "init2") != OLD[vcpus]
    document = sevlaunch(
        *("owner", "digest", "--firmware", image, *given, "--vmsa", "es-init", "--format", "json")
    ).json
    assert {"name": "vmsa", "value": "es-init", "sha256": None, "source": "--vmsa"} in document["inputs"]


@pytest.mark.parametrize(
    "more",
    [
        ["--vcpus", "4"],
        ["--vmsa", "init2"],
        ["--vmm-type", "ec2"],
        ["--guest-features", "0x21"],
        ["--cpu", "EPYC-Milan"],
        ["--cpu-signature", MILAN],
        ["--vmm-type", "ec2", "--guest-features", "1", "--vcpus", "4"],
    ],
)
def test_what_a_sev_launch_does_not_measure_is_refused(more: list[str], image: Path, sevlaunch: Command) -> None:
    result = sevlaunch("owner", "digest", "--type", "sev", "--firmware", image, *more, check=2)
    assert "measures no vCPUs" in result.stderr
    assert all(word in result.stderr for word in more if word.startswith("--"))
    # In a SEV-ES launch each counts.
    es = ("--type", "sev-es", *(() if "--vmsa" in more else ("--vmsa", "es-init")))
    assert hexadecimal(sevlaunch, image, *es, *more) != hexadecimal(
        sevlaunch, image, "--type", "sev-es", "--vmsa", "es-init"
    )


def test_the_digest_of_the_firmware_alone(image: Path, sevlaunch: Command) -> None:
    snp = hexadecimal(sevlaunch, image, "--type", "sev-snp", "--firmware-only")
    assert snp == OVMF_HASH
    given = ("--type", "sev-snp", "--cpu-signature", MILAN)
    for option in ("--firmware-hash", "--ovmf-hash"):
        assert hexadecimal(sevlaunch, image, *given, "--vmsa", "es-init", option, snp) == OLD[1]
    sev = sevlaunch("owner", "digest", "--type", "sev", "--firmware", image, "--firmware-only", "--format", "json").json
    assert sev == {"type": "sev", "firmware_hash": hashlib.sha256(image.read_bytes()).hexdigest()}
    text = sevlaunch("owner", "digest", "--type", "sev-snp", "--firmware", image, "--firmware-only").stdout
    assert text == f"firmware hash  {snp}\n"
    for more in (("--against", snp), ("--dump-vmsa", "pages")):
        words: tuple[str | Path, ...] = (
            "owner",
            "digest",
            "--type",
            "sev-snp",
            "--firmware",
            image,
            "--firmware-only",
            *more,
        )
        assert "prints one digest" in sevlaunch(*words, check=2).stderr


def test_the_vmsa_pages_are_those_of_sev_snp_measure(image: Path, base: Path, sevlaunch: Command) -> None:
    given = ("owner", "digest", "--type", "sev-snp", "--firmware", image, "--cpu-signature", MILAN, "--vcpus", "3")
    sevlaunch(*given, "--dump-vmsa", base / "pages")
    known = list(VMSA(SevMode.SEV_SNP, RESET_EIP, 0xA00F11, 1).pages(3))
    assert [(base / f"pages/vmsa{number}.bin").read_bytes() for number in range(3)] == [bytes(one) for one in known]
    assert len(list((base / "pages").iterdir())) == 3
    # Nothing is overwritten.
    assert "exists already" in sevlaunch(*given, "--dump-vmsa", base / "pages", check=2).stderr
    sevlaunch(*given, "--vmsa", "es-init", "--dump-vmsa", base / "older")
    older = (base / "older/vmsa0.bin").read_bytes()
    differing = {at for at in range(4096) if older[at] != known[0][at]}
    assert differing <= {*range(0x408, 0x40C), *range(0x410, 0x412)}
    assert differing
    es = ("owner", "digest", "--type", "sev-es", "--firmware", image, "--dump-vmsa", base / "es")
    assert "say which: --vmsa" in sevlaunch(*es, check=2).stderr
    sevlaunch(*es, "--vmsa", "init2")
    sev = ("owner", "digest", "--type", "sev", "--firmware", image, "--dump-vmsa", base / "sev")
    assert "has no VMSA pages" in sevlaunch(*sev, check=2).stderr
