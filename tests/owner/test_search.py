"""Wrong set-ups get their one right explanation, and each try is as good as a computation from the start."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from sevlaunch.guest_type import GuestType
from sevlaunch.owner.change import Known
from sevlaunch.owner.changes import launch_changes
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.digest import Launch, launch_digest
from sevlaunch.owner.explain import explain
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.message_changes import Message, message_changes
from sevlaunch.owner.search import Findings
from sevlaunch.owner.setup import Options, resolve_setup
from sevlaunch.owner.verify import Expectation, verify_launch
from sevlaunch.profile.loader import load
from sevlaunch.sevapi.kernel_hashes import KernelHashes, cmdline_hash
from sevlaunch.sevapi.measurement import KeyedMeasure, measure
from tests.owner.images import ovmf
from tests.owner.launches import POLICIES, TEK, TIK, Host

VARS = bytes(0x84000)
CODE = ovmf(size=0x20000)
KERNEL = hashlib.sha256(b"kernel").digest()
CMDLINE = b"console=ttyS0 quiet"
HASHES = KernelHashes(KERNEL, cmdline=cmdline_hash(CMDLINE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A profile for each type, with the files that it names."""
    (tmp_path / "code.fd").write_bytes(CODE)
    (tmp_path / "vars.fd").write_bytes(VARS)
    (tmp_path / "whole.fd").write_bytes(VARS + CODE)
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"initrd")
    for kind, policy in POLICIES.items():
        (tmp_path / f"{kind}.yaml").write_text(
            "cpu: {model: EPYC-Milan, count: 2}\n"
            f"security: {{type: {kind}, policy: {policy:#x}, kernel_hashes: true}}\n"
            "firmware: {image: code.fd}\n"
            f"boot: {{kernel: kernel, cmdline: '{CMDLINE.decode()}'}}\n"
        )
    return tmp_path


def right(kind: GuestType) -> Host:
    """The host that does what the profile says."""
    launch = Launch(kind, Firmware.of_image(CODE), HASHES, vcpus=2, cpu_signature=0xA00F11, init2=False)
    return Host(launch, POLICIES[kind])


def found(
    host: Host,
    kind: str,
    folder: Path,
    *overrides: str,
    options: Options | None = None,
    tik: bytes = TIK,
    go_on: Callable[[], bool] = lambda: True,
) -> Findings:
    """What the search says of a host that was to run the profile."""
    loaded = load(folder / f"{kind}.yaml", overrides=overrides)
    setup = resolve_setup(loaded, options or Options())
    evidence = msgspec.convert(host.evidence(), HostClaims)
    expectation = Expectation.of_setup(setup)
    verdict = verify_launch(evidence, expectation, tik)
    assert not verdict.matches
    return explain(evidence, expectation, verdict, tik, tek=TEK, setup=setup, profile=loaded.profile, go_on=go_on)


def test_the_right_set_up_needs_no_explanation(folder: Path) -> None:
    for kind in (GuestType.SEV, GuestType.SEV_ES):
        setup = resolve_setup(load(folder / f"{kind}.yaml"), Options())
        host = right(kind)
        assert verify_launch(msgspec.convert(host.evidence(), HostClaims), Expectation.of_setup(setup), TIK).verified


def _cmdline(text: bytes) -> KernelHashes:
    return replace(HASHES, cmdline=cmdline_hash(text))


ES, SEV = right(GuestType.SEV_ES), right(GuestType.SEV)
WRONG: dict[str, tuple[Host, str, tuple[str, ...], str]] = {
    "vcpus": (ES.with_launch(vcpus=4), "sev-es", (), "vcpus were 4 (profile says 2)"),
    "many vcpus": (ES.with_launch(vcpus=512), "sev-es", (), "vcpus were 512 (profile says 2)"),
    "generation": (
        ES.with_launch(init2=True),
        "sev-es",
        (),
        "the VMSA generation were init2 (default says es-init)",
    ),
    "cpu": (
        ES.with_launch(cpu_signature=0x800F12),
        "sev-es",
        (),
        "the CPU signature were 0x800f12 (EPYC) (profile says 0xa00f11 (EPYC-Milan))",
    ),
    "guest features": (
        ES.with_launch(guest_features=0x20),
        "sev-es",
        (),
        "guest features were 0x20 (default says 0x0)",
    ),
    "hashes off": (SEV.with_launch(kernel=None), "sev", (), "kernel hashes were off (profile says on)"),
    "hashes on": (SEV, "sev", ("security.kernel_hashes=false",), "kernel hashes were on (default says off)"),
    "no initrd": (
        SEV,
        "sev",
        ("boot.initrd=FOLDER/initrd",),
        "the initrd were left out (profile says there is one)",
    ),
    "hashes on, with an initrd": (
        SEV.with_launch(kernel=replace(HASHES, initrd=hashlib.sha256(b"initrd").digest())),
        "sev",
        ("security.kernel_hashes=false", "boot.initrd=FOLDER/initrd"),
        "kernel hashes were on (default says off)",
    ),
    "newline": (
        SEV.with_launch(kernel=_cmdline(CMDLINE + b"\n")),
        "sev",
        (),
        r"the command line were 'console=ttyS0 quiet\n' (profile says 'console=ttyS0 quiet')",
    ),
    "space": (
        ES.with_launch(kernel=_cmdline(b" " + CMDLINE)),
        "sev-es",
        (),
        "the command line were ' console=ttyS0 quiet' (profile says 'console=ttyS0 quiet')",
    ),
    "no NUL": (
        SEV.with_launch(kernel=replace(HASHES, cmdline=hashlib.sha256(CMDLINE).digest())),
        "sev",
        (),
        "the command line were hashed without its final NUL (profile says 'console=ttyS0 quiet')",
    ),
    "policy": (
        replace(SEV, policy=0x32, said={"policy": 0x33}),
        "sev",
        (),
        "the policy were 0x32 (no-key-sharing, domain, sev) "
        "(profile says 0x33 (no-debug, no-key-sharing, domain, sev))",
    ),
    "code alone": (
        SEV,
        "sev",
        ("firmware.image=FOLDER/whole.fd",),
        "the firmware were its code alone, without the first 0x84000 bytes (profile says the whole file)",
    ),
    "api": (
        replace(SEV, said={"api_minor": 50}),
        "sev",
        (),
        "the API minor version were 51 (evidence says 50)",
    ),
    "keys": (replace(SEV, tik=TEK), "sev", (), "the TIK were what --tek has: the files are exchanged"),
    "type": (SEV, "sev-es", (), "the type were sev (profile says sev-es) and the policy were 0x33"),
    "two of the launch": (
        ES.with_launch(vcpus=8, kernel=_cmdline(CMDLINE + b"\n")),
        "sev-es",
        (),
        "vcpus were 8 (profile says 2) and the command line were",
    ),
    "one of each": (
        replace(ES.with_launch(vcpus=3), policy=0x36, said={"policy": 0x37}),
        "sev-es",
        (),
        "vcpus were 3 (profile says 2) and the policy were 0x36",
    ),
    "two of the message": (
        replace(SEV, said={"api_minor": 49, "build_id": 9}),
        "sev",
        (),
        "the API minor version were 51 (evidence says 49) and the build were 3 (evidence says 9)",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_set_up_gets_its_one_right_explanation(name: str, folder: Path) -> None:
    host, kind, overrides, text = WRONG[name]
    overrides = tuple(one.replace("FOLDER", str(folder)) for one in overrides)
    findings = found(host, kind, folder, *overrides)
    assert str(findings).startswith(f"would match if {text}"), str(findings)
    assert len(findings.changes) == 1 + (" and the " in str(findings))


def test_the_whole_image_on_flash_is_found_where_the_profile_has_the_pair(folder: Path) -> None:
    host = SEV.with_launch(firmware=Firmware.of_image(VARS + CODE))
    pair = f"firmware={{code: {folder / 'code.fd'}, vars: {folder / 'vars.fd'}, image: null}}"
    findings = found(host, "sev", folder, pair)
    assert f"the firmware were {folder / 'vars.fd'} and then the code, as one image" in str(findings)


def test_code_without_the_variables_that_are_before_it_is_found(folder: Path) -> None:
    # Smaller than what OVMF has, so that only the file itself tells their size.
    (folder / "vars.fd").write_bytes(bytes(0x1000))
    (folder / "code.fd").write_bytes(bytes(0x1000) + CODE)
    pair = f"firmware={{code: {folder / 'code.fd'}, vars: {folder / 'vars.fd'}, image: null}}"
    findings = found(SEV, "sev", folder, pair)
    assert f"the firmware were its code alone, without {folder / 'vars.fd'}" in str(findings)


def test_generations_that_are_as_good_as_each_other_are_no_change(folder: Path) -> None:
    for init2 in (True, False):
        host = replace(ES.with_launch(vcpus=5, init2=init2), qemu="10.0.2")
        findings = found(host, "sev-es", folder)
        assert str(findings) == "would match if vcpus were 5 (profile says 2)"


def test_what_the_owner_said_himself_is_named(folder: Path) -> None:
    findings = found(ES, "sev-es", folder, options=Options(vcpus=9))
    assert str(findings) == "would match if vcpus were 2 (--vcpus says 9)"


def test_no_explanation_is_said_with_what_was_tried(folder: Path) -> None:
    findings = found(replace(SEV, tik=b"quite another k."), "sev", folder, f"firmware.image={folder / 'whole.fd'}")
    assert (findings.changes, findings.complete) == ((), True)
    for subject in ("kernel hashes", "the command line", "the policy", "the firmware", "the API minor version"):
        assert subject in str(findings)
    assert f"({findings.tried} tried)" in str(findings)
    assert findings.tried > 100_000


def test_the_search_ends_when_it_may_not_go_on(folder: Path) -> None:
    answers = itertools.chain([True, True], itertools.repeat(False))
    findings = found(replace(SEV, tik=b"quite another k."), "sev", folder, go_on=lambda: next(answers))
    assert (findings.changes, findings.complete) == ((), False)
    assert "then the time was up" in str(findings)


def test_every_change_is_one_and_no_two_are_the_same(folder: Path) -> None:
    setup = resolve_setup(load(folder / "sev-es.yaml"), Options())
    changes = list(launch_changes(setup, [False], Known()))
    digests = [launch_digest(change.apply(setup.launch)) for change in changes if change.subject != "the firmware"]
    own = {launch_digest(replace(setup.launch, init2=init2)) for init2 in (True, False)}
    assert len(digests) == len(set(digests)) > 530
    # The launch itself is none of its changes; only the other generation is what it can be by default.
    assert len(own & set(digests)) == 1
    message = Message(TIK, 0x37, 1, 51, 3, bytes(32))
    messages = [one.apply(message) for one in message_changes(message, 0x36, tek=TEK, digests={}, policy_source="")]
    assert len(messages) == len(set(messages)) == 6 + 1 + 3 * 255
    assert message not in messages


def test_the_keyed_measure_is_the_measure() -> None:
    for number in range(50):
        tik = hashlib.sha256(bytes([number])).digest()[:16]
        digest, mnonce = hashlib.sha256(tik).digest(), tik[::-1]
        values = (number, 255 - number, number * 5, number << 20)
        expected = measure(
            tik,
            api_major=values[0],
            api_minor=values[1],
            build_id=values[2],
            policy=values[3],
            digest=digest,
            mnonce=mnonce,
        )
        assert KeyedMeasure(tik).of(*values, digest, mnonce) == expected
