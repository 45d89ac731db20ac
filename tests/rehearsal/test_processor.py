"""The emulated processor as a state machine, and under a QEMU that is hostile or broken."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import struct

import pytest

from sevlaunch.rehearsal.kvm import Answer, EmulatedSev
from sevlaunch.rehearsal.platform import API_MAJOR, API_MINOR, BUILD_ID, Platform
from sevlaunch.rehearsal.processor import MAX_GUESTS, GuestState, SecureProcessor
from sevlaunch.rehearsal.requests import (
    KVM_CREATE_VM,
    KVM_GET_DEVICE_ATTR,
    KVM_HAS_DEVICE_ATTR,
    KVM_MEMORY_ENCRYPT_OP,
    KVM_MEMORY_ENCRYPT_REG_REGION,
    KVM_SET_CPUID2,
    SEV_ISSUE_CMD,
    SEV_REQUESTS,
)
from sevlaunch.rehearsal.seccomp import build_filter
from sevlaunch.sevapi import ecdsa
from sevlaunch.sevapi.certificate import Certificate
from sevlaunch.sevapi.measurement import measure
from sevlaunch.sevapi.status import FirmwareError, Status
from tests.owner.images import ovmf

SEQUENCES = 200_000 if os.environ.get("SEVLAUNCH_SOAK") else 10_000
PLATFORM = Platform.generate()


@pytest.fixture
def processor() -> SecureProcessor:
    """A processor whose random bytes are known."""
    return SecureProcessor(PLATFORM, random=lambda size: bytes(range(size)))


def status_of(processor: SecureProcessor, policy: int) -> Status:
    """What LAUNCH_START answers to a policy."""
    try:
        processor.launch_start(policy, b"", b"")
    except FirmwareError as error:
        return error.status
    return Status.SUCCESS


def test_a_launch_measures_all_that_it_was_given(processor: SecureProcessor) -> None:
    handle = processor.launch_start(0x33, b"", b"")
    processor.launch_update_data(handle, [b"a" * 16, b"b" * 16])
    blob = processor.launch_measure(handle)
    expected = measure(
        bytes(range(16)),
        api_major=API_MAJOR,
        api_minor=API_MINOR,
        build_id=BUILD_ID,
        policy=0x33,
        digest=hashlib.sha256(b"a" * 16 + b"b" * 16).digest(),
        mnonce=bytes(range(16)),
    )
    assert blob == expected + bytes(range(16))
    processor.launch_finish(handle)
    assert processor.guest_status(handle) == (0x33, GuestState.RUNNING)


def test_policies_are_refused_as_the_sev_api_says(processor: SecureProcessor) -> None:
    assert status_of(processor, 0x33) is Status.SUCCESS
    assert status_of(processor, 0x40) is Status.POLICY_FAILURE
    assert status_of(processor, API_MINOR << 24 | API_MAJOR << 16) is Status.SUCCESS
    assert status_of(processor, (API_MINOR + 1) << 24 | API_MAJOR << 16) is Status.POLICY_FAILURE
    assert status_of(processor, 0x04) is Status.SUCCESS
    assert status_of(SecureProcessor(PLATFORM, es_enabled=False), 0x04) is Status.POLICY_FAILURE


def test_commands_in_the_wrong_state_are_refused(processor: SecureProcessor) -> None:
    handle = processor.launch_start(0x01, b"", b"")
    with pytest.raises(FirmwareError) as caught:
        processor.launch_finish(handle)
    assert caught.value.status is Status.INVALID_GUEST_STATE
    with pytest.raises(FirmwareError) as caught:
        processor.launch_update_vmsa(handle, [bytes(4096)])
    assert caught.value.status is Status.UNSUPPORTED
    processor.launch_measure(handle)
    for wrong in (
        lambda: processor.launch_update_data(handle, [b""]),
        lambda: processor.launch_measure(handle),
    ):
        with pytest.raises(FirmwareError) as caught:
            wrong()
        assert caught.value.status is Status.INVALID_GUEST_STATE
    with pytest.raises(FirmwareError) as caught:
        processor.launch_finish(handle + 1)
    assert caught.value.status is Status.INVALID_GUEST


def test_a_key_is_shared_only_where_both_policies_allow_it(processor: SecureProcessor) -> None:
    shared = processor.launch_start(0x01, b"", b"")
    assert processor.launch_start(0x01, b"", b"", shared)
    for policy, handle, status in (
        (0x03, shared, Status.POLICY_FAILURE),
        (0x00, shared, Status.POLICY_FAILURE),
        (0x01, 999, Status.INVALID_GUEST),
    ):
        with pytest.raises(FirmwareError) as caught:
            processor.launch_start(policy, b"", b"", handle)
        assert caught.value.status is status


def test_only_an_owners_certificate_and_session_together_begin_a_launch(processor: SecureProcessor) -> None:
    pek = PLATFORM.chain[0].to_bytes()
    for dh_cert, session, status in (
        (pek, b"", Status.INVALID_LENGTH),
        (b"", bytes(128), Status.INVALID_LENGTH),
        (pek, bytes(128), Status.INVALID_CERTIFICATE),
        (PLATFORM.pdh_certificate.to_bytes(), bytes(128), Status.BAD_MEASUREMENT),
    ):
        with pytest.raises(FirmwareError) as caught:
            processor.launch_start(0x01, dh_cert, session)
        assert caught.value.status is status


def test_there_is_room_for_so_many_guests(processor: SecureProcessor) -> None:
    for _ in range(MAX_GUESTS):
        assert status_of(processor, 0x01) is Status.SUCCESS
    assert processor.guest_count == MAX_GUESTS
    assert status_of(processor, 0x01) is Status.RESOURCE_LIMIT


def test_a_report_has_a_nonce_of_16_bytes_and_the_peks_signature(processor: SecureProcessor) -> None:
    handle = processor.launch_start(0x01, b"", b"")
    with pytest.raises(FirmwareError) as caught:
        processor.attestation_report(handle, bytes(16))
    assert caught.value.status is Status.INVALID_GUEST_STATE
    processor.launch_measure(handle)
    with pytest.raises(FirmwareError) as caught:
        processor.attestation_report(handle, bytes(15))
    assert caught.value.status is Status.INVALID_LENGTH
    report = processor.attestation_report(handle, b"n" * 16)
    assert report[:52] == b"n" * 16 + hashlib.sha256().digest() + b"\1\0\0\0"
    signature = report[64:].ljust(512, b"\0")
    assert ecdsa.verifies(PLATFORM.pek.public_key(), signature, report[:52], "sha256")


def test_a_platform_is_saved_and_its_chain_verifies() -> None:
    again = Platform.from_json(PLATFORM.to_json())
    assert again.pdh_certificate.public_key == PLATFORM.pdh_certificate.public_key
    pek, oca, cek = PLATFORM.chain
    assert PLATFORM.pdh_certificate.is_signed_by(pek)
    assert pek.is_signed_by(oca)
    assert pek.is_signed_by(cek)
    assert oca.is_signed_by(oca)
    assert b"BEGIN" not in repr(PLATFORM).encode()


class FlatMemory:
    """A QEMU's memory of a few pages; everything else is a fault."""

    def __init__(self, content: bytes, base: int = 0x10000) -> None:
        self.content = bytearray(content)
        self.base = base

    def read(self, address: int, size: int) -> bytes:
        """:raise OSError: outside."""
        start = address - self.base
        if start < 0 or start + size > len(self.content):
            raise OSError("fault")
        return bytes(self.content[start : start + size])

    def write(self, address: int, content: bytes) -> None:
        """:raise OSError: outside."""
        self.read(address, len(content))
        start = address - self.base
        self.content[start : start + len(content)] = content


def test_pointers_to_nowhere_are_a_fault() -> None:
    emulated = EmulatedSev(SecureProcessor(PLATFORM))
    for request in (SEV_ISSUE_CMD, KVM_MEMORY_ENCRYPT_OP, KVM_SET_CPUID2):
        for address in (1, 0xFFFF, 1 << 63, (1 << 64) - 1):
            assert emulated.ioctl(FlatMemory(b""), 3, request, address).error == 14
    assert emulated.ioctl(FlatMemory(b""), 3, KVM_MEMORY_ENCRYPT_OP, 0) == Answer()
    assert emulated.ioctl(FlatMemory(b""), 3, KVM_MEMORY_ENCRYPT_REG_REGION, 0).error == 25


def test_a_length_of_4_gib_reads_nothing_of_the_kind() -> None:
    emulated = EmulatedSev(SecureProcessor(PLATFORM))
    memory = FlatMemory(bytes(4096))
    memory.write(0x10000, struct.pack("<IIQII", 0, 0, 0, 0, 3))
    assert emulated.ioctl(memory, 3, KVM_MEMORY_ENCRYPT_OP, 0x10000) == Answer()
    memory.write(0x10000, struct.pack("<IIQII", 2, 0, 0x10100, 0, 3))
    memory.write(0x10100, struct.pack("<IIQIIQII", 0, 1, 0x10000, 0xFFFFFFFF, 0, 0x10000, 0xFFFFFFFF, 0))
    assert emulated.ioctl(memory, 3, KVM_MEMORY_ENCRYPT_OP, 0x10000).error == 5
    assert struct.unpack("<I", memory.read(0x10010, 4))[0] == Status.INVALID_LENGTH


def command(emulated: EmulatedSev, memory: FlatMemory, number: int, content: bytes = b"") -> Status:
    """What the processor answers to one of KVM's SEV commands, whose structure is ``content``."""
    memory.write(0x10100, content)
    memory.write(0x10000, struct.pack("<IIQII", number, 0, 0x10100, 0, 3))
    answer = emulated.ioctl(memory, 3, KVM_MEMORY_ENCRYPT_OP, 0x10000)
    assert answer.error in (0, errno.EIO)
    return Status(struct.unpack("<I", memory.read(0x10010, 4))[0])


@pytest.mark.parametrize("length", [1, 8, 15, 17, 24, 4095])
def test_only_whole_blocks_of_16_bytes_are_encrypted(length: int) -> None:
    emulated, memory = EmulatedSev(SecureProcessor(PLATFORM)), FlatMemory(bytes(3 * 4096))
    assert command(emulated, memory, 0) is Status.SUCCESS
    assert command(emulated, memory, 2, struct.pack("<IIQIIQII", 0, 1, 0, 0, 0, 0, 0, 0)) is Status.SUCCESS
    assert command(emulated, memory, 3, struct.pack("<QII", 0x11000, length, 0)) is Status.INVALID_LENGTH
    assert command(emulated, memory, 3, struct.pack("<QII", 0x11000, (length + 15) // 16 * 16, 0)) is Status.SUCCESS


def started(emulated: EmulatedSev, memory: FlatMemory, policy: int = 1) -> None:
    """Go through KVM_SEV_ES_INIT and LAUNCH_START."""
    assert command(emulated, memory, 1) is Status.SUCCESS
    assert command(emulated, memory, 2, start_of(policy)) is Status.SUCCESS


def start_of(policy: int) -> bytes:
    """struct kvm_sev_launch_start without an owner's session."""
    return struct.pack("<IIQIIQII", 0, policy, 0, 0, 0, 0, 0, 0)


def test_sev_es_begins_only_where_the_platform_has_it() -> None:
    memory = FlatMemory(bytes(4096))
    memory.write(0x10000, struct.pack("<IIQII", 1, 0, 0, 0, 3))
    without = EmulatedSev(SecureProcessor(PLATFORM, es_enabled=False))
    assert without.ioctl(memory, 3, KVM_MEMORY_ENCRYPT_OP, 0x10000).error == errno.ENOTTY
    emulated = EmulatedSev(SecureProcessor(PLATFORM))
    assert emulated.ioctl(memory, 3, KVM_MEMORY_ENCRYPT_OP, 0x10000) == Answer()
    # A VM begins once.
    assert emulated.ioctl(memory, 3, KVM_MEMORY_ENCRYPT_OP, 0x10000).error == errno.EINVAL


def test_a_vm_has_one_guest() -> None:
    emulated, memory = EmulatedSev(SecureProcessor(PLATFORM)), FlatMemory(bytes(4096))
    started(emulated, memory)
    assert command(emulated, memory, 2, start_of(1)) is Status.INVALID_GUEST_STATE


def test_firmware_whose_table_is_damaged_has_no_vmsas() -> None:
    image = bytearray(ovmf(size=4096))
    assert command_vmsa(bytes(image)) is Status.SUCCESS
    # The length of the last entry before the footer.
    image[-32 - 18 - 18 : -32 - 18 - 16] = b"\1\0"
    assert command_vmsa(bytes(image)) is Status.INVALID_PARAM


def command_vmsa(firmware: bytes) -> Status:
    """What LAUNCH_UPDATE_VMSA answers to a guest with one vCPU and this firmware."""
    emulated, memory = EmulatedSev(SecureProcessor(PLATFORM)), FlatMemory(bytes(4096) + firmware)
    started(emulated, memory, 0x05)
    memory.write(0x10800, struct.pack("<II", 0, 0))
    assert emulated.ioctl(memory, 7, KVM_SET_CPUID2, 0x10800).let_pass
    assert command(emulated, memory, 3, struct.pack("<QII", 0x11000, len(firmware), 0)) is Status.SUCCESS
    return command(emulated, memory, 4)


def test_buffers_that_are_too_short_are_refused_with_the_length_that_they_need() -> None:
    emulated, memory = EmulatedSev(SecureProcessor(PLATFORM)), FlatMemory(bytes(4096))
    started(emulated, memory)
    # LAUNCH_MEASURE.
    assert command(emulated, memory, 6, struct.pack("<QII", 0x10800, 47, 0)) is Status.INVALID_LENGTH
    assert struct.unpack_from("<I", memory.read(0x10108, 4)) == (48,)
    assert command(emulated, memory, 6, struct.pack("<QII", 0x10800, 48, 0)) is Status.SUCCESS
    # ATTESTATION.
    assert command(emulated, memory, 20, struct.pack("<16sQII", b"", 0x10800, 207, 0)) is Status.INVALID_LENGTH
    assert struct.unpack_from("<I", memory.read(0x10118, 4)) == (208,)
    assert command(emulated, memory, 20, struct.pack("<16sQII", b"", 0x10800, 208, 0)) is Status.SUCCESS
    # LAUNCH_SECRET: the header has 52 bytes.
    secret = (0x10800, 51, 0, 0x10900, 16, 0, 0x10A00, 16, 0)
    assert command(emulated, memory, 5, struct.pack("<QIIQIIQII", *secret)) is Status.INVALID_LENGTH


def test_the_features_of_vmsas_are_there_and_what_they_are() -> None:
    emulated, memory = EmulatedSev(SecureProcessor(PLATFORM)), FlatMemory(bytes(4096))
    memory.write(0x10000, struct.pack("<IIQQ", 0, 1, 0, 0x10800))
    assert emulated.ioctl(memory, 3, KVM_HAS_DEVICE_ATTR, 0x10000) == Answer()
    assert memory.read(0x10800, 8) == bytes(8)
    assert emulated.ioctl(memory, 3, KVM_GET_DEVICE_ATTR, 0x10000) == Answer()
    # SEV_FEATURES, AMD 24593 table B-4: DebugSwap and SecureTsc.
    assert struct.unpack("<Q", memory.read(0x10800, 8)) == (1 << 5 | 1 << 9,)
    memory.write(0x10000, struct.pack("<IIQQ", 0, 2, 0, 0x10800))
    assert emulated.ioctl(memory, 3, KVM_HAS_DEVICE_ATTR, 0x10000).let_pass


def test_any_sequence_of_random_ioctls_gets_an_answer_and_never_an_exception() -> None:
    chance = random.Random(20261123)
    interesting = [0, 1, 16, 48, 52, 128, 2084, 16384, 0xFFFFFFFF, 0x10000, 0x10100, 0x10800, 1 << 63]
    codes = {int(status) for status in Status}
    for _ in range(SEQUENCES):
        emulated = EmulatedSev(SecureProcessor(PLATFORM))
        memory = FlatMemory(chance.randbytes(4096))
        for _ in range(chance.randrange(1, 8)):
            request = chance.choice(SEV_REQUESTS)
            at = 0x10000 + chance.choice([0, 0x40, 0x80, 0x200])
            command = chance.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 20, 22, chance.randrange(1 << 32)])
            fields = [chance.choice([*interesting, chance.randrange(1 << 64)]) & 0xFFFFFFFF for _ in range(16)]
            memory.write(0x10400, struct.pack("<16I", *fields))
            memory.write(at, struct.pack("<IIQII", command, 0, chance.choice([0x10400, 0, 1 << 63, 0x10FFF]), 0, 3))
            answer = emulated.ioctl(memory, chance.randrange(8), request, chance.choice([at, 0, 0x10FF8, 1 << 63]))
            assert answer.error in (0, 5, 14, 22, 25)
            if answer.error == 5 and request == KVM_MEMORY_ENCRYPT_OP:
                assert struct.unpack("<I", memory.read(at + 16, 4))[0] in codes


def test_the_filter_notifies_of_the_listed_ioctls_only() -> None:
    built = build_filter(SEV_REQUESTS, [KVM_CREATE_VM])
    program = [struct.unpack_from("<HBBI", built, offset) for offset in range(0, len(built), 8)]

    def run(number: int, architecture: int, request: int) -> int:
        data = struct.pack("<iIQQQ", number, architecture, 0, 3, request)
        counter, accumulator = 0, 0
        while True:
            code, if_true, if_false, value = program[counter]
            counter += 1
            if code == 0x20:
                accumulator = struct.unpack_from("<I", data, value)[0]
            elif code == 0x15:
                counter += if_true if accumulator == value else if_false
            else:
                return int(value)

    allow, notify, trace = 0x7FFF0000, 0x7FC00000, 0x7FF00000
    assert run(16, 0xC000003E, KVM_CREATE_VM) == trace
    for request in SEV_REQUESTS:
        assert run(16, 0xC000003E, request) == notify
        assert run(16, 0xC000003E, request | 7 << 32) == notify
        assert run(17, 0xC000003E, request) == allow
        assert run(16, 0x40000003, request) == allow
    kvm_run = 0xAE80
    assert run(16, 0xC000003E, kvm_run) == allow


def test_the_exported_certificates_are_in_amds_format() -> None:
    pdh, chain = SecureProcessor(PLATFORM).pdh_cert_export()
    assert (len(pdh), len(chain)) == (2084, 6252)
    assert Certificate.from_bytes(pdh).is_signed_by(Certificate.from_bytes(chain[:2084]))
