"""The emulated processor for SNP as a state machine, and under a QEMU that is hostile or broken."""

from __future__ import annotations

import errno
import random
import struct
from collections.abc import Callable
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from sevlaunch.rehearsal.processor import SecureProcessor
from sevlaunch.rehearsal.requests import (
    KVM_CREATE_GUEST_MEMFD,
    KVM_MEMORY_ENCRYPT_OP,
    KVM_SET_USER_MEMORY_REGION2,
    SNP_REQUESTS,
)
from sevlaunch.rehearsal.snp_kvm import EmulatedSnp
from sevlaunch.rehearsal.snp_processor import CpuidRefused, SnpGuest, SnpState
from sevlaunch.sevapi.id_block import IdAuthentication, IdBlock, key_digest
from sevlaunch.sevapi.report import Report
from sevlaunch.sevapi.snp import PAGE, PageType
from sevlaunch.sevapi.status import FirmwareError, Status
from tests.rehearsal.test_processor import PLATFORM, SEQUENCES, FlatMemory

POLICY = 0x30000
HOST_DATA = bytes(range(32))


@pytest.fixture
def guest() -> SnpGuest:
    """A guest in launch."""
    new = SnpGuest(PLATFORM)
    new.launch_start(POLICY, bytes(16))
    return new


def status_of(action: Callable[[], object]) -> Status:
    """What the processor answers."""
    try:
        action()
    except FirmwareError as error:
        return error.status
    return Status.SUCCESS


@pytest.mark.parametrize(
    ("policy", "status"),
    [
        (POLICY, Status.SUCCESS),
        (1 << 16, Status.INVALID_PARAM),
        (POLICY | 1 << 40, Status.INVALID_PARAM),
        (POLICY | 9 << 8, Status.POLICY_FAILURE),
        (POLICY | 1 << 8 | 55, Status.SUCCESS),
        (POLICY | 1 << 8 | 56, Status.POLICY_FAILURE),
    ],
)
def test_the_policy_is_checked(policy: int, status: Status) -> None:
    assert status_of(lambda: SnpGuest(PLATFORM).launch_start(policy, bytes(16))) is status


def test_each_command_has_its_state(guest: SnpGuest) -> None:
    fresh = SnpGuest(PLATFORM)
    assert status_of(lambda: fresh.launch_update(1, 0, bytes(PAGE))) is Status.INVALID_GUEST_STATE
    assert status_of(lambda: fresh.launch_finish(host_data=HOST_DATA)) is Status.INVALID_GUEST_STATE
    assert status_of(lambda: guest.launch_start(POLICY, bytes(16))) is Status.INVALID_GUEST_STATE
    assert status_of(lambda: guest.report(bytes(64))) is Status.INVALID_GUEST_STATE
    guest.launch_finish(host_data=HOST_DATA)
    assert guest.state is SnpState.RUNNING
    assert status_of(lambda: guest.launch_update(1, 0, bytes(PAGE))) is Status.INVALID_GUEST_STATE
    assert status_of(lambda: guest.report(bytes(63))) is Status.INVALID_PARAM
    assert Report.from_bytes(guest.report(bytes(range(64)), vmpl=2)).vmpl == 2


def test_only_normal_pages_and_vmsas_are_measured_by_their_contents() -> None:
    measured = set()
    for page_type in PageType:
        digests = set()
        for content in (bytes(PAGE), struct.pack("<IIQ", 0, 0, 0).ljust(PAGE, b"\1")):
            one = SnpGuest(PLATFORM)
            one.launch_start(POLICY, bytes(16))
            one.launch_update(page_type, 0x1000, content)
            digests.add(one.digest)
        if len(digests) == 2:
            measured.add(page_type)
    assert measured == {PageType.NORMAL, PageType.VMSA}


def test_zero_pages_are_zeroed_and_the_secrets_page_is_written(guest: SnpGuest) -> None:
    content = b"\xaa" * PAGE
    assert guest.launch_update(PageType.ZERO, 0, content) == bytes(PAGE)
    assert guest.launch_update(PageType.UNMEASURED, 0, content) == content
    secrets = guest.launch_update(PageType.SECRETS, 0, content)
    assert len(secrets) == PAGE
    assert secrets[:4] == b"\3\0\0\0"
    keys = [secrets[start : start + 32] for start in range(32, 160, 32)]
    assert len(set(keys)) == 4
    assert not any(secrets[160:])


@pytest.mark.parametrize(("page_type", "gpa", "size"), [(0, 0, PAGE), (7, 0, PAGE), (1, 5, PAGE), (1, 0, 100)])
def test_pages_that_are_none_are_refused(guest: SnpGuest, page_type: int, gpa: int, size: int) -> None:
    assert status_of(lambda: guest.launch_update(page_type, gpa, bytes(size))) is Status.INVALID_PARAM


def cpuid_page(*functions: tuple[int, ...], count: int | None = None, reserved: int = 0) -> bytes:
    """A CPUID page; a function is eax_in, ecx_in, xcr0_in, xss_in, eax, ebx, ecx, edx."""
    head = struct.pack("<IIQ", len(functions) if count is None else count, reserved, 0)
    return (head + b"".join(struct.pack("<IIQQIIIIQ", *one, 0) for one in functions)).ljust(PAGE, b"\0")


def test_the_cpuid_page_has_rules(guest: SnpGuest) -> None:
    good = cpuid_page((1, 0, 0, 0, 0x800F12, 0, 0, 0), (0xD, 0, 1, 0, 7, 0x240, 0x340, 0), (0xD, 2, 1, 0, 1, 2, 3, 4))
    assert guest.launch_update(PageType.CPUID, 0, good) == good
    last = bytearray(good)
    last[16 + 40] = 1
    for bad in (cpuid_page(count=65), cpuid_page(reserved=1), bytes(last)):
        assert status_of(partial(guest.launch_update, PageType.CPUID, 0, bad)) is Status.INVALID_PARAM
    with pytest.raises(CpuidRefused) as refused:
        guest.launch_update(PageType.CPUID, 0, cpuid_page((0xD, 0, 0, 0, 7, 0x340, 0x340, 0)))
    assert refused.value.page == cpuid_page((0xD, 0, 1, 0, 7, 0x240, 0x340, 0))


def test_an_id_block_is_checked_as_the_abi_says(guest: SnpGuest) -> None:
    guest.launch_update(PageType.NORMAL, 0x1000, bytes(PAGE))
    id_key, author = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))

    def finish(block: IdBlock, author_key: ec.EllipticCurvePrivateKey | None, wanted: bool, bit: int = -1) -> Status:
        authentication = bytearray(IdAuthentication.make(block, id_key, author_key).to_bytes())
        if bit >= 0:
            authentication[bit] ^= 1
        return status_of(
            lambda: guest.launch_finish(
                id_block=block.to_bytes(), id_auth=bytes(authentication), author_key=wanted, host_data=HOST_DATA
            )
        )

    good = IdBlock(guest.digest, POLICY)
    for block, host_data in ((good.to_bytes()[:-1], HOST_DATA), (good.to_bytes(), HOST_DATA[:-1])):
        wrong = partial(guest.launch_finish, id_block=block, id_auth=bytes(4096), host_data=host_data)
        assert status_of(wrong) is Status.INVALID_PARAM
    assert finish(IdBlock(bytes(48), POLICY), author, True) is Status.BAD_MEASUREMENT
    assert finish(IdBlock(guest.digest, POLICY | 1 << 19), author, True) is Status.POLICY_FAILURE
    assert finish(IdBlock(guest.digest, POLICY, version=2), author, True) is Status.BAD_VERSION
    assert finish(good, None, True) is Status.BAD_SIGNATURE
    assert finish(good, author, True, bit=64) is Status.BAD_SIGNATURE
    assert finish(good, author, True, bit=0) is Status.BAD_SIGNATURE
    assert finish(good, None, False) is Status.SUCCESS
    report = Report.from_bytes(guest.report(bytes(64)))
    assert report.author_key_digest == bytes(48)
    assert report.id_key_digest == key_digest(IdAuthentication.make(good, id_key, None).id_key)


def command(emulated: EmulatedSnp, memory: FlatMemory, number: int, content: bytes) -> int:
    """The errno that the kernel answers one of its SEV commands with, whose structure is ``content``."""
    memory.write(0x10400, content)
    memory.write(0x10000, struct.pack("<IIQII", number, 0, 0x10400, 0, 3))
    return emulated.ioctl(memory, 3, KVM_MEMORY_ENCRYPT_OP, 0x10000).error


def in_launch(memory: FlatMemory, guest: SnpGuest | None = None) -> EmulatedSnp:
    """An emulated KVM after INIT2 and SNP_LAUNCH_START."""
    emulated = EmulatedSnp(SecureProcessor(PLATFORM), guest or SnpGuest(PLATFORM), lambda guest: None)
    assert command(emulated, memory, 22, bytes(48)) == 0
    assert command(emulated, memory, 100, struct.pack("<Q", POLICY).ljust(64, b"\0")) == 0
    return emulated


@pytest.mark.parametrize(
    ("length", "page_type", "flags"),
    [(PAGE, PageType.VMSA, 0), (PAGE, PageType.NORMAL, 1), (100, PageType.NORMAL, 0), (1 << 33, PageType.NORMAL, 0)],
)
def test_the_kernel_itself_refuses_an_update(length: int, page_type: PageType, flags: int) -> None:
    memory, guest = FlatMemory(bytes(3 * PAGE)), SnpGuest(PLATFORM)
    emulated = in_launch(memory, guest)
    before = guest.digest

    def update(length: int, page_type: PageType, flags: int) -> int:
        content = struct.pack("<QQQBxH36x", 0x100, 0x11000, length, page_type, flags)
        return command(emulated, memory, 101, content)

    assert update(length, page_type, flags) == errno.EINVAL
    # The VMSAs are the kernel's own: one that QEMU brings would be in the digest.
    assert guest.digest == before
    assert update(PAGE, PageType.NORMAL, 0) == 0
    assert guest.digest != before


def finish(*, author_key: int = 0, vcek_disabled: int = 0, flags: int = 0) -> bytes:
    """struct kvm_sev_snp_launch_finish without an id block."""
    return struct.pack("<QQBBB32s3xH32x", 0, 0, 0, author_key, vcek_disabled, HOST_DATA, flags)


def test_a_launch_is_finished_once_and_takes_no_pages_then() -> None:
    memory, guest = FlatMemory(bytes(3 * PAGE)), SnpGuest(PLATFORM)
    emulated = in_launch(memory, guest)

    def status(number: int, content: bytes) -> Status:
        assert command(emulated, memory, number, content) == errno.EIO
        return Status(struct.unpack("<I", memory.read(0x10010, 4))[0])

    assert command(emulated, memory, 102, finish(flags=1)) == errno.EINVAL
    assert status(102, finish(vcek_disabled=1)) is Status.INVALID_KEY
    # Without an id block there is nothing for an author to sign.
    assert status(102, finish(author_key=1)) is Status.INVALID_PARAM
    assert command(emulated, memory, 102, finish()) == 0
    assert guest.state is SnpState.RUNNING
    digest = guest.digest
    assert status(102, finish()) is Status.INVALID_GUEST_STATE
    page = struct.pack("<QQQBxH36x", 0x100, 0x11000, PAGE, PageType.NORMAL, 0)
    assert status(101, page) is Status.INVALID_GUEST_STATE
    assert guest.digest == digest


def test_what_the_firmware_would_report_is_written_over_a_cpuid_page_that_is_refused() -> None:
    memory = FlatMemory(bytes(3 * PAGE))
    emulated = in_launch(memory)
    memory.write(0x11000, cpuid_page((0xD, 0, 0, 0, 7, 0x340, 0x340, 0)))
    update = struct.pack("<QQQBxH36x", 0x100, 0x11000, PAGE, PageType.CPUID, 0)
    assert command(emulated, memory, 101, update) == errno.EIO
    assert struct.unpack("<I", memory.read(0x10010, 4))[0] == Status.INVALID_PARAM
    assert memory.read(0x11000, PAGE) == cpuid_page((0xD, 0, 1, 0, 7, 0x240, 0x340, 0))
    # QEMU tries again with that.
    assert command(emulated, memory, 101, update) == 0


def test_memory_stays_ordinary() -> None:
    memory = FlatMemory(bytes(4096))
    emulated = in_launch(memory)
    memory.write(0x10000, struct.pack("<IIQQQQI", 3, 4 | 2, 0x1000, 0x2000, 0x3000, 0x4000, 9))
    assert emulated.ioctl(memory, 3, KVM_SET_USER_MEMORY_REGION2, 0x10000).let_pass
    assert memory.read(0x10000, 44) == struct.pack("<IIQQQQI", 3, 2, 0x1000, 0x2000, 0x3000, 0, 0)
    for size in (0, 1, 1 << 63):
        memory.write(0x10000, struct.pack("<QQ", size, 0))
        assert emulated.ioctl(memory, 3, KVM_CREATE_GUEST_MEMFD, 0x10000).error == 22


def test_any_sequence_of_random_ioctls_gets_an_answer_and_never_an_exception() -> None:
    chance = random.Random(20261123)
    codes = {int(status) for status in Status}
    interesting = [0, 1, 0x1000, 0x10000, 0x10400, 1 << 20, 1 << 32, 1 << 63, (1 << 64) - 1]
    requests = [request for request in SNP_REQUESTS if request != KVM_CREATE_GUEST_MEMFD]
    for _ in range(SEQUENCES // 2):
        memory = FlatMemory(bytes(4096))
        emulated = in_launch(memory)
        for _ in range(chance.randrange(1, 6)):
            memory.write(0x10400, chance.randbytes(128))
            fields = [chance.choice([*interesting, chance.randrange(1 << 64)]) for _ in range(3)]
            memory.write(0x10400, struct.pack("<QQQB", *fields, chance.randrange(8)))
            command = chance.choice([2, 22, 100, 101, 101, 102, chance.randrange(1 << 32)])
            memory.write(0x10000, struct.pack("<IIQII", command, 0, chance.choice([0x10400, 0, 1 << 63]), 0, 3))
            request = chance.choice([KVM_MEMORY_ENCRYPT_OP, chance.choice(requests)])
            answer = emulated.ioctl(memory, 3, request, chance.choice([0x10000, 0x10000, 0, 1 << 63]))
            assert answer.error in (0, 5, 14, 22, 25)
            if answer.error == 5:
                assert struct.unpack("<I", memory.read(0x10010, 4))[0] in codes
