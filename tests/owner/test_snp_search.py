"""Wrong set-ups of SNP launches get their one right explanation; the work that it takes is counted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.guest_type import GuestType
from sevlaunch.image.initrd import joined_hash
from sevlaunch.owner.change import Others
from sevlaunch.owner.digest import Launch, launch_digest
from sevlaunch.owner.expected_report import expected_of_lock, expected_of_setup
from sevlaunch.owner.explain import explain_digest
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.lock import Lock, read_lock
from sevlaunch.owner.others import read_others
from sevlaunch.owner.search import Findings
from sevlaunch.owner.setup import Options, resolve_setup
from sevlaunch.profile.loader import load
from sevlaunch.sevapi.id_block import IdBlock
from sevlaunch.sevapi.kernel_hashes import KernelHashes, cmdline_hash
from sevlaunch.sevapi.ovmf import SectionKind
from sevlaunch.sevapi.snp import PageType
from tests.conftest import Command
from tests.owner.images import ovmf
from tests.owner.pki import der, processor
from tests.owner.test_report_command import trusting

CODE = ovmf(size=0x20000)
OTHER_BUILD = ovmf(size=0x20000, fill=0)
KERNEL = hashlib.sha256(b"MZkernel").digest()
CMDLINE = b"console=ttyS0 quiet"
HASHES = KernelHashes(KERNEL, hashlib.sha256(b"initrd").digest(), cmdline_hash(CMDLINE))
# What the profile in `folder` says.
RIGHT = Launch(GuestType.SEV_SNP, Firmware.of_image(CODE), HASHES, 2, 0xA00F11, guest_features=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile with the files that it names, and others."""
    for name, content in {
        "code.fd": CODE,
        "other.fd": OTHER_BUILD,
        "kernel": b"MZkernel",
        "other-kernel": b"MZother",
        "initrd": b"initrd",
        "older-initrd": b"older initrd",
    }.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "guest.yaml").write_text(
        "cpu: {model: EPYC-Milan-v2, count: 2}\n"
        "security: {type: sev-snp, kernel_hashes: true}\n"
        "firmware: {image: code.fd}\n"
        f"boot: {{kernel: kernel, initrd: initrd, cmdline: '{CMDLINE.decode()}'}}\n"
    )
    return tmp_path


def found(
    launch: Launch,
    folder: Path,
    *overrides: str,
    options: Options | None = None,
    others: Others | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> Findings:
    """What the search says of a launch that was to be the profile's."""
    loaded = load(folder / "guest.yaml", overrides=overrides)
    setup = resolve_setup(loaded, options or Options())
    digest = launch_digest(launch)
    assert digest != setup.digests()[""]
    return explain_digest(digest, setup, profile=loaded.profile, others=others, go_on=go_on)


def with_hashes(**changes: bytes) -> Launch:
    """The right launch with other hashes of the direct boot."""
    return replace(RIGHT, kernel=replace(HASHES, **changes))


def with_cmdline(text: bytes) -> Launch:
    """The right launch with another command line."""
    return with_hashes(cmdline=cmdline_hash(text))


SAID = "(profile says 'console=ttyS0 quiet')"
WRONG: dict[str, tuple[Launch, str]] = {
    "vcpus": (replace(RIGHT, vcpus=4), "vcpus were 4 (profile says 2)"),
    "many vcpus": (replace(RIGHT, vcpus=512), "vcpus were 512 (profile says 2)"),
    "cpu model": (
        replace(RIGHT, cpu_signature=0x800F12),
        "the CPU signature were 0x800f12 (EPYC) (profile says 0xa00f11 (EPYC-Milan))",
    ),
    "stepping": (
        replace(RIGHT, cpu_signature=0xA00F12),
        "the CPU signature were 0xa00f12 (EPYC-Milan, stepping 2) (profile says 0xa00f11 (EPYC-Milan))",
    ),
    "debug swap": (replace(RIGHT, guest_features=0x21), "guest features were 0x21 (default says 0x1)"),
    "secure TSC and more": (replace(RIGHT, guest_features=0x10221), "guest features were 0x10221 (default says 0x1)"),
    "hashes off": (replace(RIGHT, kernel=None), "kernel hashes were off (profile says on)"),
    "newline": (with_cmdline(CMDLINE + b"\n"), rf"the command line were 'console=ttyS0 quiet\n' {SAID}"),
    "blank": (with_cmdline(CMDLINE + b" "), f"the command line were 'console=ttyS0 quiet ' {SAID}"),
    "quotes": (with_cmdline(b'"' + CMDLINE + b'"'), "the command line were '\"console=ttyS0 quiet\"'"),
    "initrd=": (
        with_cmdline(CMDLINE + b" initrd=initrd"),
        f"the command line were 'console=ttyS0 quiet initrd=initrd' {SAID}",
    ),
    "no initrd": (
        with_hashes(initrd=hashlib.sha256().digest()),
        "the initrd were left out (profile says there is one)",
    ),
    "older kernel": (
        replace(RIGHT, zero_fpu=True),
        "the VMSA pages were those of a KVM before Linux 6.10, with zeros in MXCSR and the x87 control word",
    ),
    "ec2": (replace(RIGHT, vmm="ec2"), "the hypervisor were that of Amazon EC2 (default says QEMU)"),
    "gce": (replace(RIGHT, vmm="gce"), "the hypervisor were that of Google Compute Engine (default says QEMU)"),
    "CPUID page": (
        replace(RIGHT, odd_pages=((SectionKind.CPUID, PageType.ZERO),)),
        "the CPUID page were of the type ZERO (default says what QEMU adds)",
    ),
    "secrets page": (
        replace(RIGHT, odd_pages=((SectionKind.SNP_SECRETS, None),)),
        "the secrets page were left out (default says what QEMU adds)",
    ),
    "hashes page": (
        replace(RIGHT, odd_pages=((SectionKind.SNP_KERNEL_HASHES, PageType.UNMEASURED),)),
        "the page for kernel hashes were of the type UNMEASURED (default says what QEMU adds)",
    ),
}
# More than any one change is, and far less than all pairs.
ONE = 1000


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_set_up_gets_its_one_right_explanation(name: str, folder: Path) -> None:
    launch, text = WRONG[name]
    findings = found(launch, folder)
    assert str(findings).startswith(f"would match if {text}"), str(findings)
    assert (len(findings.changes), findings.complete) == (1, True)
    assert findings.tried < ONE


def test_the_right_set_up_needs_no_explanation(folder: Path) -> None:
    assert resolve_setup(load(folder / "guest.yaml"), Options()).digests() == {"": launch_digest(RIGHT)}


def test_hashes_that_the_profile_leaves_off_are_found(folder: Path) -> None:
    findings = found(RIGHT, folder, "security.kernel_hashes=false")
    assert str(findings) == "would match if kernel hashes were on (default says off)"


@pytest.mark.parametrize(
    ("file", "launch", "text"),
    [
        ("other.fd", replace(RIGHT, firmware=Firmware.of_image(OTHER_BUILD)), "the firmware were FOLDER/other.fd"),
        (
            "older-initrd",
            with_hashes(initrd=hashlib.sha256(b"older initrd").digest()),
            "the initrd were FOLDER/older-initrd (profile says FOLDER/initrd)",
        ),
        (
            "other-kernel",
            with_hashes(kernel=hashlib.sha256(b"MZother").digest()),
            "the kernel were FOLDER/other-kernel (profile says FOLDER/kernel)",
        ),
    ],
)
def test_another_file_at_hand_is_tried(file: str, launch: Launch, text: str, folder: Path) -> None:
    others = read_others([folder / name for name in ("other.fd", "older-initrd", "other-kernel")])
    assert str(found(launch, folder, others=others)).startswith(
        f"would match if {text.replace('FOLDER', str(folder))}"
    ), file
    assert found(launch, folder).changes == ()


@pytest.mark.parametrize(
    ("launch", "texts"),
    [
        (replace(RIGHT, vcpus=8, cpu_signature=0x800F12), ("vcpus were 8", "the CPU signature were 0x800f12")),
        (replace(with_cmdline(CMDLINE + b"\n"), vcpus=64), ("vcpus were 64", "the command line were")),
        (replace(RIGHT, kernel=None, guest_features=0x21), ("guest features were 0x21", "kernel hashes were off")),
    ],
)
def test_two_changes_are_found(launch: Launch, texts: tuple[str, str], folder: Path) -> None:
    findings = found(launch, folder)
    assert [text in str(findings) for text in texts] == [True, True], str(findings)
    assert len(findings.changes) == 2


def test_no_explanation_says_what_was_tried_and_what_no_digest_covers(folder: Path) -> None:
    findings = found(replace(RIGHT, vcpus=4, guest_features=0x21, kernel=None), folder)
    assert (findings.changes, findings.complete) == ((), True)
    for subject in (
        "vcpus",
        "the CPU signature",
        "guest features",
        "kernel hashes",
        "the CPUID page",
        "the hypervisor",
    ):
        assert subject in findings.subjects
    assert f"({findings.tried} tried)" in str(findings)
    assert "a digest does not cover policy, HOST_DATA and ID block" in str(findings)
    # So many hashes of some hundred bytes are a second of work.
    assert 20_000 < findings.tried < 40_000


def test_the_search_ends_when_it_may_not_go_on(folder: Path) -> None:
    answers = iter([True, True, False])
    findings = found(replace(RIGHT, vcpus=4, guest_features=0x21, kernel=None), folder, go_on=lambda: next(answers))
    assert (findings.changes, findings.complete) == ((), False)


CREDENTIALS = {"motd": b"hello", "role": b"web"}
SAID_CREDENTIALS = "boot.credentials={motd: {text: hello}, role: {text: web}}"


@pytest.mark.parametrize(
    ("initrd", "credentials", "text"),
    [
        ("initrd", {}, "without its credentials"),
        ("initrd", {"role": b"web"}, "without its credential motd"),
        ("initrd", {"motd": b"hello"}, "without its credential role"),
        ("older-initrd", CREDENTIALS, "FOLDER/older-initrd with the credentials"),
        ("older-initrd", {}, "FOLDER/older-initrd"),
    ],
)
def test_credentials_that_were_left_out_of_the_initrd_are_found(
    initrd: str, credentials: dict[str, bytes], text: str, folder: Path
) -> None:
    launch = with_hashes(initrd=joined_hash(folder / initrd, credentials))
    findings = found(launch, folder, SAID_CREDENTIALS, others=read_others([folder / "older-initrd"]))
    expected = f"would match if the initrd were {text} (profile says FOLDER/initrd)"
    assert str(findings) == expected.replace("FOLDER", str(folder))
    assert findings.tried < ONE


def test_a_lock_with_credentials_finds_that_they_were_left_out(folder: Path) -> None:
    file = lock(folder)
    joined = joined_hash(folder / "older-initrd", CREDENTIALS)
    right = replace(RIGHT, kernel=KernelHashes(KERNEL, joined, cmdline_hash(b"ro")))
    plain = hashlib.sha256(b"older initrd").hexdigest()
    more = {
        "initrd": {"path": "initrd.img", "sha256": plain},
        "initrd_with_credentials": joined.hex(),
        "credentials": {name: hashlib.sha256(content).hexdigest() for name, content in CREDENTIALS.items()},
        "digests": {"launch": launch_digest(right).hex()},
    }
    file.write_text(json.dumps(json.loads(file.read_text()) | more))
    digest = launch_digest(replace(right, kernel=KernelHashes(KERNEL, bytes.fromhex(plain), cmdline_hash(b"ro"))))
    findings = expected_of_lock(read_lock(file)).why_not(digest, Others(), go_on=lambda: True)
    assert str(findings).startswith("would match if the initrd were without its credentials (--initrd-hash says")
    # Of another launch it is one of those that may have been.
    text = str(found(with_hashes(initrd=joined), folder, others=read_others([file])))
    assert f"the initrd were initrd.img with the credentials of {file} (profile says" in text


def lock(folder: Path) -> Path:
    """The profile's launch of last week, with another initrd and command line, in a lock file."""
    launch = replace(RIGHT, kernel=KernelHashes(KERNEL, hashlib.sha256(b"older").digest(), cmdline_hash(b"ro")))
    file = folder / "guest.lock"
    content = {
        "lock": 1,
        "name": "guest",
        "type": "sev-snp",
        "policy": 0x30000,
        "qemu": "10.0.2",
        "vcpus": 2,
        "cpu": {"model": "EPYC-Milan", "signature": 0xA00F11},
        "firmware": {"path": str(folder / "code.fd"), "sha256": hashlib.sha256(CODE).hexdigest()},
        "kernel": {"path": "vmlinuz", "sha256": KERNEL.hex()},
        "initrd": {"path": "initrd.img", "sha256": hashlib.sha256(b"older").hexdigest()},
        "cmdline": {"text": "ro", "sha256": cmdline_hash(b"ro").hex()},
        "kernel_hashes": True,
        "digests": {"launch": launch_digest(launch).hex()},
    }
    file.write_text(json.dumps(content))
    return file


def test_another_initrd_of_a_lock_is_tried(folder: Path) -> None:
    file = lock(folder)
    launch = with_hashes(initrd=hashlib.sha256(b"older").digest())
    text = str(found(launch, folder, others=read_others([file])))
    assert text.startswith(f"would match if the initrd were initrd.img of {file} (profile says {folder}/initrd)")
    both = with_hashes(initrd=hashlib.sha256(b"older").digest(), cmdline=cmdline_hash(b"ro"))
    text = str(found(both, folder, others=read_others([file])))
    assert "the initrd were initrd.img of" in text
    assert "the command line were 'ro' of" in text


def test_a_lock_whose_firmware_is_at_hand_is_as_good_as_a_profile(folder: Path) -> None:
    locked: Lock = read_lock(lock(folder))
    digest = launch_digest(replace(RIGHT, kernel=None))
    findings = expected_of_lock(locked).why_not(digest, Others(), go_on=lambda: True)
    assert str(findings) == "would match if kernel hashes were off (--kernel-hash says on)"
    (folder / "code.fd").rename(folder / "moved.fd")
    assert expected_of_lock(locked).why_not(digest, Others(), go_on=lambda: True) is None
    assert expected_of_lock(locked, folder / "moved.fd").setup is not None
    (folder / "code.fd").write_bytes(OTHER_BUILD)
    assert expected_of_lock(locked).setup is None


def test_a_profile_says_policy_and_host_data(folder: Path) -> None:
    data = "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="
    loaded = load(folder / "guest.yaml", overrides=[f"security.host_data={data}"])
    expected = expected_of_setup(resolve_setup(loaded, Options()), loaded.profile)
    assert (expected.policy, expected.host_data) == (0x30000, bytes(range(1, 33)))


def test_the_commands_name_what_differs(folder: Path, sevlaunch: Command) -> None:
    made = processor(version=3)
    (folder / "certs").mkdir()
    for number, certificate in enumerate(made.certificates):
        (folder / f"certs/{number}.der").write_bytes(der(certificate))
    (folder / "root.pem").write_bytes(der(made.certificates[2]))
    digest = launch_digest(replace(RIGHT, vcpus=4))
    (folder / "report").write_bytes(made.signed(measurement=digest))
    profile = folder / "guest.yaml"
    given = ["owner", "report", folder / "report", *trusting(folder), "--any-report-data", "--profile", profile]
    result = sevlaunch(*given, check=1)
    assert "measurement: would match if vcpus were 4 (profile says 2)" in result.stdout
    document = sevlaunch(*given, "--format", "json", check=1).json
    assert document["search"]["changes"] == [{"subject": "vcpus", "value": "4", "said": "2", "source": "profile"}]
    assert sevlaunch(*given, "--set", "cpu.count=4", "--format", "json").json["search"] is None
    (folder / "block").write_bytes(IdBlock(digest, 0x30000).to_bytes())
    for other in (digest.hex(), folder / "block", folder / "report"):
        told = sevlaunch("owner", "digest", profile, "--against", other, check=1).stdout
        assert "the digest is another: would match if vcpus were 4 (profile says 2)" in told
    assert (
        "the digest is the same"
        in sevlaunch("owner", "digest", profile, "--set", "cpu.count=4", "--against", folder / "block").stdout
    )
    sevlaunch("owner", "digest", profile, "--against", folder / "root.pem", check=2)
    sevlaunch(*given, "--digest", digest.hex(), check=2)
