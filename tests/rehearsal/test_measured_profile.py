"""profiles/measured.yaml on real QEMUs: its launch is what its owner, and sev-snp-measure, say of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.conftest import Command, qemu_binary_of
from tests.measured import PROFILE, on, small_image
from tests.rehearsal.owner import share_platform
from tests.rehearsal.test_snp import SNP_VERSIONS, expected_digest, report_of

CPUS = 2


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


@pytest.fixture(params=["small", pytest.param("debian", marks=pytest.mark.soak)])
def disks(request: pytest.FixtureRequest, base: Path, sevlaunch: Command) -> tuple[str, ...]:
    """The option for an image with its hash tree: a small one, or the Debian that boots."""
    sevlaunch.environment["XDG_CACHE_HOME"] = str(base / "cache")
    if request.param == "small":
        return on(*small_image(base, linux=(needs.demo_guest() / "vmlinuz").read_bytes()))
    image, tree = needs.measured_debian(), base / "root.raw.verity"
    needs.program("veritysetup", "cryptsetup-bin")
    sevlaunch("image", "verity", image, "--output", tree, limit=300)
    return on(image, tree)


@pytest.mark.parametrize("version", SNP_VERSIONS)
def test_its_launch_is_the_one_that_its_owner_expects(
    version: str, disks: tuple[str, ...], sevlaunch: Command, base: Path
) -> None:
    share_platform(sevlaunch)
    words = (*disks, "--set", f"firmware.image={needs.amdsev_image()}")
    qemu = ("--set", f"qemu.binary={qemu_binary_of(version)}")
    lock = base / "lock"
    lock.write_text(sevlaunch("render", PROFILE, *words, *qemu, "--rehearse", "--lock", limit=300).stdout)
    # The emulated processor compares the ID block, and would run no other launch.
    started = sevlaunch("up", PROFILE, *words, *qemu, "--rehearse", "--verify", "--format", "json", limit=300)
    assert "is the launch that its ID block names" in started.stderr
    evidence = sevlaunch("evidence", "measured").json
    report = report_of(evidence)
    kernel, initrd, cmdline = (
        evidence["command"][evidence["command"].index(f"-{word}") + 1] for word in ("kernel", "initrd", "append")
    )
    assert report.measurement == expected_digest(CPUS, hashes=(kernel, initrd, cmdline))
    assert " roothash=" in cmdline
    told = sevlaunch("owner", "digest", PROFILE, *words, "--format", "json", limit=300).json
    (digest,) = (one["hex"] for one in told["digests"])
    assert report.measurement.hex() == digest
    assert report.id_key_digest.hex() == told["id_key_digest"]
    document = base / "initdata.toml"
    document.write_text(sevlaunch("owner", "initdata", PROFILE, *words).stdout)
    bound = sevlaunch("owner", "initdata", PROFILE, *words, "--format", "json").json
    assert report.host_data.hex() == bound["host_data"]
    assert {"seed/user-data", "seed/meta-data"} <= set(bound["data"])
    # Three owners: with the guest's own profile, with a lock file, and with the digest and the init-data alone.
    ask = ("attest", "measured", "--rehearsal")
    by_digest = ("--digest", digest, "--policy", "0x30000")
    for known in ((), ("--lock", lock), (*by_digest, "--initdata", document)):
        answer = sevlaunch(*ask, *known, "--format", "json", limit=300).json
        assert {"measurement", "host data"} <= {one["name"] for one in answer["checks"]}, known
    document.write_text(document.read_text().replace("sha-256", "sha-384"))
    refused = sevlaunch(*ask, *by_digest, "--initdata", document, check=1).stdout
    assert any(line.split()[:3] == ["host", "data", "no"] for line in refused.splitlines())
    sevlaunch("down", "measured", "--now")
    assert sevlaunch.left_behind() == []
