"""Launch digests: the published ones come out the same, and sev-snp-measure agrees on images made here."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from sevsnpmeasure.guest import calc_launch_digest
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmm_types import VMMType

from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.cpu import known_signatures, signature_of, with_features
from sevlaunch.owner.digest import Digests, Launch, Vmm, launch_digest
from sevlaunch.owner.firmware import Firmware
from sevlaunch.sevapi.kernel_hashes import NO_INITRD, KernelHashes, cmdline_hash
from tests.conftest import HOSTS, PROFILES, Command
from tests.owner.images import (
    AMDSEV_SECTIONS,
    INITIAL_STATE,
    OVMFX64_SECTIONS,
    PublishedFirmware,
    SpecSha256,
    ovmf,
)

EPYC = 0x800F12
EMPTY = hashlib.sha256().digest()
CMDLINE = b"console=ttyS0 loglevel=7"

# The firmware of sev-snp-measure's tests (ovmf_AmdSev_suffix.bin, ovmf_OvmfX64_suffix.bin), in numbers: SHA-256, its
# state after the image, and the SNP launch digest after the image's pages.
AMDSEV = PublishedFirmware(
    sha256=bytes.fromhex("8f765dfabc127fc0a938a0744a3103ec15864d7d794eb4c398aa976b6d6ab16c"),
    state=bytes.fromhex("835de74bb394339355bb10f348ff3922eb9a4742b55f23c2e312f79c8c8bae48"),
)
AMDSEV_PAGES = "086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74"
OVMFX64_PAGES = "b91e6fec73d2bcc57ad5fd400a426ce02731c22ea92bc894ce675e7c9921a822977d6cf025b85f8ef4f264bff8839d20"


def test_the_spelled_out_sha256_is_sha256() -> None:
    for size in (0, 55, 56, 64, 4096):
        content = bytes(index & 0xFF for index in range(size))
        assert SpecSha256(INITIAL_STATE, 0).then(content).digest() == hashlib.sha256(content).digest()
    assert SpecSha256(AMDSEV.state, 4096).digest() == AMDSEV.sha256


@pytest.mark.parametrize(
    ("kind", "vcpus", "cmdline", "digest"),
    [
        (GuestType.SEV, 1, CMDLINE, "82a3ee5d537c3620628270c292ae30cb40c3c878666a7890ee7ef2a08fb535ff"),
        (GuestType.SEV, 1, b"", "77f613d7bbcdf12a73782ea9e88b0172aeda50d1a54201cb903594ff52846898"),
        (GuestType.SEV_ES, 1, b"", "13810ae661ea11e2bb205621f582fee268f0367c8f97bc297b7fadef3e12002c"),
        (GuestType.SEV_ES, 4, b"", "0dccbcaba8e90b261bd0d2e1863a2f9da714768b7b2a19363cd6ae35aa90de91"),
    ],
)
def test_sev_snp_measures_published_digests_of_sev_and_sev_es(
    kind: GuestType, vcpus: int, cmdline: bytes, digest: str
) -> None:
    kernel = KernelHashes(EMPTY, NO_INITRD, cmdline_hash(cmdline))
    launch = Launch(kind, AMDSEV, kernel, vcpus=vcpus, cpu_signature=EPYC, init2=True)
    assert launch_digest(launch).hex() == digest


# Image, whether a kernel is measured, its command line, vCPUs, guest features, VMM, digest.
SNP = [
    (
        "amdsev",
        "",
        1,
        "21",
        "QEMU",
        "329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198",
    ),
    (
        "amdsev",
        "",
        1,
        "1",
        "QEMU",
        "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5",
    ),
    (
        "amdsev",
        CMDLINE.decode(),
        1,
        "21",
        "QEMU",
        "803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977",
    ),
    (
        "amdsev",
        CMDLINE.decode(),
        1,
        "1",
        "QEMU",
        "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa",
    ),
    (
        "amdsev",
        "",
        1,
        "21",
        "ec2",
        "0ce9ccc06bab55eebe8abc234f3df6514883977a68a591b71052498ab52b2f1aa415db338033946ef93aa8278c0d67fb",
    ),
    (
        "amdsev",
        "",
        1,
        "1",
        "ec2",
        "0883bd0eeb716e65b7b977a321c278d1e51b33b5c655fab985443bbcc65c086b9c15e8a0bd8811050dec7e24964e5056",
    ),
    (
        "amdsev",
        "",
        1,
        "1",
        "gce",
        "5da7106cf14cf46b1725ebab123eb9e53bd46a1e9f400cd0c08e7827b04b688ea8b4e403c8404efed4397ea5d5d0722e",
    ),
    (
        "amdsev",
        "",
        4,
        "1",
        "gce",
        "5c5debf100fc339f90276e761ee1f1658d08922c3b20e2a2e6c7a6c3370b2452a15a00eae11886a93d6fd1e7ab81e29d",
    ),
    (
        "amdsev",
        None,
        1,
        "21",
        "QEMU",
        "e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b",
    ),
    (
        "amdsev",
        None,
        1,
        "1",
        "QEMU",
        "19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d",
    ),
    (
        "amdsev",
        "",
        4,
        "21",
        "QEMU",
        "4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78eafe7b422907be0b4698e2414a631942",
    ),
    (
        "amdsev",
        "",
        4,
        "1",
        "QEMU",
        "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5",
    ),
    (
        "ovmfx64",
        None,
        1,
        "21",
        "QEMU",
        "28797ae0afaba4005a81e629acebfb59e6687949d6be44007cd5506823b0dd66f146aaae26ff291eed7b493d8a64c385",
    ),
    (
        "ovmfx64",
        None,
        1,
        "1",
        "QEMU",
        "da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005",
    ),
]


@pytest.mark.parametrize(("image", "cmdline", "vcpus", "features", "vmm", "digest"), SNP)
def test_sev_snp_measures_published_digests_of_snp_through_the_command(
    image: str,
    cmdline: str | None,
    vcpus: int,
    features: str,
    vmm: str,
    digest: str,
    sevlaunch: Command,
    base: Path,
) -> None:
    sections, pages = (AMDSEV_SECTIONS, AMDSEV_PAGES) if image == "amdsev" else (OVMFX64_SECTIONS, OVMFX64_PAGES)
    (base / "ovmf.fd").write_bytes(ovmf(sections=sections))
    arguments: list[str | Path] = [
        "--type",
        GuestType.SEV_SNP,
        "--firmware",
        base / "ovmf.fd",
        "--firmware-hash",
        pages,
        "--cpu",
        "EPYC-v4",
    ]
    arguments += ["--vcpus", str(vcpus), "--guest-features", features, "--vmm-type", vmm]
    if cmdline is not None:
        arguments += ["--kernel-hash", EMPTY.hex(), "--initrd-hash", EMPTY.hex(), "--cmdline", cmdline]
    found = sevlaunch("owner", "digest", *arguments, "--format", "json").json
    assert [one["hex"] for one in found["digests"]] == [digest]


@pytest.mark.parametrize("kind", [one for one in GuestType if one.encrypted])
def test_sev_snp_measure_agrees_on_an_image_made_here(kind: GuestType, tmp_path: Path) -> None:
    image, kernel, initrd = tmp_path / "ovmf.fd", tmp_path / "kernel", tmp_path / "initrd"
    image.write_bytes(ovmf(fill=0x5A))
    kernel.write_bytes(b"kernel" * 5000)
    initrd.write_bytes(b"initrd" * 7000)
    firmware = Firmware.of_image(image.read_bytes())
    hashes = KernelHashes(
        hashlib.sha256(kernel.read_bytes()).digest(), hashlib.sha256(initrd.read_bytes()).digest(), cmdline_hash(b"a b")
    )
    mode = {GuestType.SEV: SevMode.SEV, GuestType.SEV_ES: SevMode.SEV_ES, GuestType.SEV_SNP: SevMode.SEV_SNP}[kind]
    vmms: tuple[Vmm, ...] = ("QEMU", "ec2", "gce") if kind is GuestType.SEV_SNP else ("QEMU",)
    for vcpus, boots, vmm in itertools.product((1, 2, 7), (True, False), vmms):
        features = 0x1 if kind is GuestType.SEV_SNP else 0
        launch = Launch(kind, firmware, hashes if boots else None, vcpus, EPYC, True, features, vmm)
        files = (str(kernel), str(initrd), "a b") if boots else (None, None, None)
        known = calc_launch_digest(mode, vcpus, EPYC, str(image), *files, features, vmm_type=VMMType[vmm])
        assert launch_digest(launch) == known, (vcpus, boots, vmm)


def test_digests_that_share_a_beginning_are_those_computed_one_by_one() -> None:
    firmware = Firmware.of_image(ovmf())
    kinds: tuple[GuestType, ...] = (GuestType.SEV, GuestType.SEV_ES)
    launches = [
        Launch(kind, firmware, kernel, vcpus, signature, init2)
        for kind, kernel, vcpus, signature, init2 in itertools.product(
            kinds, (None, KernelHashes(EMPTY)), (5, 1, 3), (EPYC, 0xA00F11), (True, False)
        )
    ]
    shared = Digests()
    assert [shared.of(launch) for launch in launches] == [launch_digest(launch) for launch in launches]
    distinct = {launch_digest(launch) for launch in launches if launch.guest_type.has_vmsa_generations}
    assert len(distinct) == 2 * 3 * 2 * 2


def test_a_hash_of_the_firmware_is_enough_where_nothing_follows_it() -> None:
    image = ovmf()
    known = Firmware(hashlib.sha256(image).digest())
    assert launch_digest(Launch(GuestType.SEV, known)) == launch_digest(Launch(GuestType.SEV, Firmware.of_image(image)))
    for launch in (
        Launch(GuestType.SEV, known, KernelHashes(EMPTY)),
        Launch(GuestType.SEV_ES, known),
        Launch(GuestType.SEV_SNP, known),
    ):
        with pytest.raises(UsageError, match=r"can't go on from a hash|whole pages"):
            launch_digest(launch)


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (
            Launch(GuestType.SEV, Firmware.of_image(ovmf(hashes_gpa=0)), KernelHashes(EMPTY)),
            "no place for kernel hashes",
        ),
        (Launch(GuestType.SEV_ES, Firmware.of_image(ovmf(reset_eip=0))), "where the other vCPUs start"),
        (Launch(GuestType.SEV_SNP, Firmware.of_image(ovmf(sections=()))), "no metadata for SNP"),
        (
            Launch(GuestType.SEV_SNP, Firmware.of_image(ovmf(sections=OVMFX64_SECTIONS)), KernelHashes(EMPTY)),
            "no page for kernel hashes",
        ),
        (Launch(GuestType.SEV_SNP, Firmware.of_image(ovmf(hashes_gpa=0x810FF0)), KernelHashes(EMPTY)), "does not fit"),
    ],
)
def test_firmware_that_lacks_what_the_launch_needs_is_refused(launch: Launch, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        launch_digest(launch)


def test_firmware_whose_table_is_damaged_is_refused() -> None:
    image = bytearray(ovmf())
    # The length of the entry before the footer.
    image[-32 - 36 : -32 - 34] = bytes(2)
    with pytest.raises(UsageError, match="the firmware: the image is damaged: an entry of OVMF's table has length 0"):
        Firmware.of_image(bytes(image))


def test_what_the_profile_and_the_host_leave_open_is_taken_from_the_owner(sevlaunch: Command, base: Path) -> None:
    (base / "ovmf.fd").write_bytes(ovmf())
    (base / "kernel").write_bytes(b"kernel")
    said: list[str | Path] = ["--set", f"firmware.image={base / 'ovmf.fd'}", "--format", "json"]
    es: list[str | Path] = ["owner", "digest", PROFILES / "sev-es.yaml", *said]

    def inputs(*arguments: str | Path) -> dict[str, tuple[str, str]]:
        return {one["name"]: (one["value"], one["source"]) for one in sevlaunch(*es, *arguments).json["inputs"]}

    milan = HOSTS / "milan-qemu-10.0.json"
    assert inputs("--set", "cpu.model=host", "--host", milan)["cpu signature"] == ("0xa00f11 (EPYC-Milan)", "host")
    for legacy, name in (("true", "es-init"), ("false", "init2")):
        assert inputs("--set", f"security.legacy_vm_type={legacy}")["vmsa"] == (name, "profile")
    kernel: list[str | Path] = ["--kernel", base / "kernel", "--cmdline"]
    known = hashlib.sha256(b"quiet\0").hexdigest()
    assert inputs(*kernel[:2], "--cmdline-hash", known)["cmdline"] == ("(known by its hash)", "--cmdline-hash")
    assert (
        sevlaunch(*es, *kernel[:2], "--cmdline-hash", known).json["digests"]
        == sevlaunch(*es, *kernel, "quiet").json["digests"]
    )


def test_cpu_signatures_are_those_of_qemus_models() -> None:
    names = {"EPYC": 0x800F12, "EPYC-v4": 0x800F12, "EPYC-Rome": 0x830F10, "EPYC-Rome-v4": 0x830F10}
    names |= {"EPYC-Milan-v2": 0xA00F11, "EPYC-Milan-v3": 0xA00F11, "EPYC-Genoa": 0xA10F10, "EPYC-Turin": 0xB00F00}
    for name, value in names.items():
        assert signature_of(name) == value
    assert len(known_signatures()) == 5
    assert with_features(0xA00F11, ("stepping=2", "kvm=off")) == 0xA00F12
    assert with_features(0xA00F11, ()) == 0xA00F11
    assert with_features(0xA00F11, ("family=0x17", "model=49", "stepping=0")) == 0x830F10
    with pytest.raises(UsageError, match="--cpu-signature"):
        signature_of("Skylake-Server")


def test_the_command_reads_a_profile_and_options_override_it(sevlaunch: Command, base: Path) -> None:
    image, kernel = base / "ovmf.fd", base / "kernel"
    image.write_bytes(ovmf())
    kernel.write_bytes(b"kernel")
    (base / "cmdline").write_bytes(b"console=ttyS0\n")
    plain = sevlaunch("owner", "digest", PROFILES / "sev.yaml", "--firmware", image, "--format", "json").json
    assert plain["digests"][0]["hex"] == hashlib.sha256(image.read_bytes()).hexdigest()
    assert {one["name"]: one["source"] for one in plain["inputs"]} == {
        "type": "profile",
        "policy": "profile",
        "firmware": "--firmware",
    }
    in_profile: list[str | Path] = [
        PROFILES / "sev-es.yaml",
        "--set",
        f"firmware.image={image}",
        "--set",
        "security.kernel_hashes=true",
        "--set",
        f"boot={{kernel: {kernel}, cmdline: console=ttyS0}}",
        "--set",
        "cpu={model: EPYC-Milan-v2, count: 3}",
    ]
    from_profile = sevlaunch("owner", "digest", *in_profile, "--format", "json").json
    spelled = sevlaunch(
        *("owner", "digest", "--type", "sev-es", "--firmware", image, "--cpu-signature", "0xa00f11", "--vcpus", "3"),
        *("--kernel-hash", hashlib.sha256(b"kernel").hexdigest(), "--cmdline-file", base / "cmdline"),
        *("--format", "json"),
    ).json
    assert from_profile["digests"] == spelled["digests"]
    # The first is what QEMU does by itself.
    assert [one["vmsa"] for one in spelled["digests"]] == ["es-init", "init2"]
    one = sevlaunch("owner", "digest", *in_profile, "--vmsa", "es-init", "--format", "json").json
    hexadecimal = [digest["hex"] for digest in from_profile["digests"]]
    assert sevlaunch("owner", "digest", *in_profile, "--format", "hex").stdout.splitlines() == hexadecimal
    assert one["digests"] == spelled["digests"][:1]
    changed = sevlaunch("owner", "digest", *in_profile, "--cmdline", "console=ttyS1", "--format", "json").json
    assert changed["digests"] != from_profile["digests"]


def test_the_firmware_of_a_saved_host_is_taken_and_without_it_said_what_to_do(sevlaunch: Command) -> None:
    result = sevlaunch("owner", "digest", PROFILES / "sev.yaml", check=2)
    assert "--firmware FILE" in result.stderr
    assert "--host FILE" in result.stderr
    there = sevlaunch("owner", "digest", PROFILES / "sev.yaml", "--host", HOSTS / "milan-qemu-7.2.json", check=None)
    assert there.code in (0, 2)
    assert "OVMF" in there.stdout + there.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "wanted a profile, or the type"),
        (["--type", "sev"], "wanted a firmware"),
        (["--type", "sev", "--firmware-hash", "12"], "32 bytes as 64"),
        (["--type", "sev", "--firmware-hash", "00" * 48], "wanted 32 bytes for sev"),
        (["--type", "sev-es", "--firmware-hash", "00" * 32], "can't go on from a hash"),
        (["--type", "sev", "--firmware-hash", "00" * 32, "--cmdline", "x"], "measured with a kernel only"),
        (["--type", "sev", "--firmware-hash", "00" * 32, "--policy", "0x37"], "disagree on the policy bit es"),
        (["--type", "sev", "--firmware-hash", "00" * 32, "--policy", "0x40"], "reserved bit"),
        (["--type", "sev", "--kernel", "k", "--kernel-hash", "00" * 32], "say the same twice"),
        (["--type", "sev", "--cpu-signature", "x"], "hexadecimal number"),
        ([PROFILES / "plain.yaml"], "nothing is measured"),
        ([PROFILES / "sev-es.yaml", "--set", "cpu.model=host", "--firmware", "OVMF"], "'host' is not known"),
    ],
)
def test_what_does_not_describe_a_launch_is_wrong_usage(
    arguments: list[str | Path], message: str, sevlaunch: Command, base: Path
) -> None:
    (base / "ovmf.fd").write_bytes(ovmf())
    arguments = [base / "ovmf.fd" if one == "OVMF" else one for one in arguments]
    assert message in sevlaunch("owner", "digest", *arguments, check=2).stderr
