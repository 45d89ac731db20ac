"""libvirt's virt-qemu-sev-validate, unmodified, and `owner verify` give the same answer, yes and no alike."""

from __future__ import annotations

import base64
import hashlib
import random
import string
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.guest_type import GuestType
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.cpu import signature
from sevlaunch.owner.digest import Launch
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.setup import Options, resolve_setup
from sevlaunch.owner.verify import Expectation, verify_launch
from sevlaunch.sevapi.kernel_hashes import NO_INITRD, KernelHashes, cmdline_hash
from tests.owner.images import ovmf
from tests.owner.launches import TIK, Host, write_keys
from tests.rehearsal.owner import validate

# Family, model and stepping of Naples, Rome, Milan, Genoa and Turin.
PROCESSORS = ((23, 1, 2), (23, 49, 0), (25, 1, 1), (25, 17, 0), (26, 2, 1))
CHARACTERS = string.ascii_letters + string.digits + "=,. '\"$%é"


class Case(Struct, frozen=True):
    """A launch as the owner expects it, in the terms of both programs."""

    kind: GuestType
    policy: int
    vcpus: int
    processor: tuple[int, int, int]
    firmware: bytes
    kernel: bytes | None
    initrd: bytes | None
    cmdline: str

    @classmethod
    def drawn(cls, draw: random.Random) -> Case:
        """A random one."""
        kind = draw.choice([GuestType.SEV, GuestType.SEV_ES])
        kernel = draw.randbytes(40) if draw.random() < 0.7 else None
        return cls(
            kind=kind,
            policy=draw.choice([0, 1, 2, 0x20, 0x33, 0x3B]) | (4 if kind.encrypts_registers else 0),
            vcpus=draw.randint(1, 16),
            processor=draw.choice(PROCESSORS),
            firmware=ovmf(fill=draw.randrange(256), reset_eip=draw.getrandbits(32)),
            kernel=kernel,
            initrd=draw.randbytes(30) if kernel and draw.random() < 0.5 else None,
            cmdline="".join(draw.choices(CHARACTERS, k=draw.randint(0, 60))) if kernel else "",
        )

    def changed(self, draw: random.Random) -> Case:
        """The same with one thing changed that the launch measures."""
        changes = [
            replace(self, policy=self.policy ^ draw.choice([1, 2, 8])),
            replace(self, firmware=self.firmware[:64] + b"!" + self.firmware[65:]),
            replace(self, kernel=None, initrd=None, cmdline="") if self.kernel else replace(self, kernel=b"kernel"),
        ]
        if self.kind.encrypts_registers:
            changes.append(replace(self, vcpus=self.vcpus + draw.choice([1, 2])))
            changes.append(replace(self, processor=(24, 7, 3)))
        if self.kernel:
            changes.append(replace(self, cmdline=self.cmdline + draw.choice(" \nx")))
            changes.append(replace(self, initrd=b"another one"))
        return draw.choice(changes)

    def host(self, draw: random.Random) -> Host:
        """The host that launches it."""
        hashes = None
        if self.kernel is not None:
            initrd = NO_INITRD if self.initrd is None else hashlib.sha256(self.initrd).digest()
            hashes = KernelHashes(hashlib.sha256(self.kernel).digest(), initrd, cmdline_hash(self.cmdline.encode()))
        launch = Launch(
            self.kind,
            Firmware.of_image(self.firmware),
            hashes,
            self.vcpus,
            signature(*self.processor),
            init2=False,
        )
        return Host(launch, self.policy, (draw.randrange(256), draw.randrange(256)), draw.randrange(256))


def ours(case: Case, evidence: HostClaims, folder: Path) -> bool:
    """What `owner verify` says."""
    options = Options(
        guest_type=case.kind,
        firmware=folder / "firmware",
        kernel=folder / "kernel" if case.kernel else None,
        initrd=folder / "initrd" if case.initrd else None,
        cmdline=case.cmdline.encode() if case.kernel else None,
        # A SEV launch does not measure them.
        vcpus=case.vcpus if case.kind.encrypts_registers else None,
        cpu_signature=signature(*case.processor) if case.kind.encrypts_registers else None,
        init2=False if case.kind.encrypts_registers else None,
        policy=hex(case.policy),
    )
    return verify_launch(evidence, Expectation.of_setup(resolve_setup(None, options)), TIK).verified


def theirs(case: Case, evidence: HostClaims, folder: Path) -> bool:
    """What libvirt's validator says."""
    tik, tek = folder / "tik.bin", folder / "tek.bin"
    words: list[object] = ["--tik", tik, "--tek", tek, "--measurement", base64.b64encode(evidence.blob).decode()]
    words += ["--api-major", evidence.sev.api_major, "--api-minor", evidence.sev.api_minor]
    words += ["--build-id", evidence.sev.build_id, "--policy", case.policy, "--firmware", folder / "firmware"]
    if case.kernel:
        words += ["--kernel", folder / "kernel", f"--cmdline={case.cmdline}"]
        words += ["--initrd", folder / "initrd"] if case.initrd else []
    if case.kind.encrypts_registers:
        words += ["--num-cpus", case.vcpus]
        for name, number in zip(("family", "model", "stepping"), case.processor, strict=True):
            words += [f"--cpu-{name}", number]
    done = validate([str(word) for word in words])
    assert done.returncode in (0, 1), done.stderr
    assert ("does not match" in done.stderr) == (done.returncode == 1), done.stderr
    return done.returncode == 0


def test_libvirts_validator_and_owner_verify_agree_on_200_launches(tmp_path: Path) -> None:
    draw, count = random.Random(200), 200
    write_keys(tmp_path)
    answers = []
    for number in range(count):
        case = Case.drawn(draw)
        launched = case if number % 2 else case.changed(draw)
        evidence = msgspec.convert(launched.host(draw).evidence(), HostClaims)
        for name, content in (("firmware", case.firmware), ("kernel", case.kernel), ("initrd", case.initrd)):
            (tmp_path / name).write_bytes(content or b"")
        answer = ours(case, evidence, tmp_path)
        assert answer == theirs(case, evidence, tmp_path), (case, launched)
        answers.append(answer)
    assert answers == [bool(number % 2) for number in range(count)]
