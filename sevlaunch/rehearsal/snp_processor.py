"""The emulated secure processor for SEV-SNP: a state machine over bytes, AMD 56860.

As :mod:`sevlaunch.rehearsal.processor` for SEV and SEV-ES: commands take and return what the ABI says, or raise
:class:`FirmwareError`. Nothing is encrypted. Keys and reports are imported where they are used, for QEMU does not wait
then for what its start does not need.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING

from sevlaunch.profile.policy import SNP_POLICY
from sevlaunch.rehearsal.platform import API_MAJOR, API_MINOR, BUILD_ID, CPU, Platform
from sevlaunch.sevapi.snp import DIGEST_BYTES, PAGE, PageType, extend
from sevlaunch.sevapi.status import FirmwareError, Status

if TYPE_CHECKING:
    from sevlaunch.sevapi.id_block import IdBlock

REPORT_VERSION = 3
HOST_DATA_BYTES = 32
VMPLS = 4
ECDSA_P384_SHA384 = 1

# AMD 56860 table "CPUID Page": COUNT, two reserved words; then functions.
_CPUID_HEAD = struct.Struct("<IIQ")
# table "CPUID_FUNCTION": EAX_IN, ECX_IN, XCR0_IN, XSS_IN, EAX, EBX, ECX, EDX, reserved.
_CPUID_FUNCTION = struct.Struct("<IIQQIIIIQ")
CPUID_COUNT_MAX = 64
_XSAVE_LEAF = 0xD
# The size of the legacy area and the header: what XCR0 = 1 needs.
_XSAVE_BASE = 0x240

# table "Secrets page": VERSION, IMI_EN, FMS, reserved, GOSVW, four VMPCKs.
_SECRETS = struct.Struct("<IIII16s32s32s32s32s")
_SECRETS_VERSION = 3


class SnpState(IntEnum):
    """GSTATE of an SNP guest."""

    INIT = 0
    LAUNCH = 1
    RUNNING = 2


class CpuidRefused(FirmwareError):
    """The CPUID page holds what the firmware would not report; ``page`` is what it would."""

    def __init__(self, page: bytes) -> None:
        super().__init__(Status.INVALID_PARAM)
        self.page = page


class SnpGuest:
    """The processor's view of one SNP guest.

    :param random: where its random bytes come from.
    """

    def __init__(self, platform: Platform, *, random: Callable[[int], bytes] = os.urandom) -> None:
        self._platform = platform
        self._random = random
        self._state = SnpState.INIT
        self._policy = 0
        self._gosvw = bytes(16)
        self._digest = bytes(DIGEST_BYTES)
        self._host_data = bytes(HOST_DATA_BYTES)
        self._report_id = random(32)
        self._identity: IdBlock | None = None
        self._id_key_digest = bytes(DIGEST_BYTES)
        self._author_key_digest = bytes(DIGEST_BYTES)

    @property
    def state(self) -> SnpState:
        """Where the launch stands."""
        return self._state

    @property
    def digest(self) -> bytes:
        """The launch digest so far, 48 bytes."""
        return self._digest

    def launch_start(self, policy: int, gosvw: bytes) -> None:
        """SNP_LAUNCH_START.

        :param gosvw: 16 bytes, the guest OS visible workarounds that the secrets page shows.
        """
        self._require(SnpState.INIT)
        wanted = policy >> SNP_POLICY.major_shift & 0xFF, policy >> SNP_POLICY.minor_shift & 0xFF
        if policy & ~SNP_POLICY.known or not policy & SNP_POLICY.always:
            raise FirmwareError(Status.INVALID_PARAM)
        if wanted > (API_MAJOR, API_MINOR):
            raise FirmwareError(Status.POLICY_FAILURE)
        self._policy, self._gosvw = policy, gosvw
        self._state = SnpState.LAUNCH

    def launch_update(self, page_type: int, gpa: int, page: bytes) -> bytes:
        """SNP_LAUNCH_UPDATE of one page of 4096 bytes; what the guest finds there.

        :raise CpuidRefused: for a CPUID page with values that the firmware would not report.
        """
        self._require(SnpState.LAUNCH)
        if page_type not in list(PageType) or len(page) != PAGE or gpa % PAGE:
            raise FirmwareError(Status.INVALID_PARAM)
        kind = PageType(page_type)
        if kind is PageType.CPUID:
            _check_cpuid(page)
        self._digest = extend(self._digest, kind, gpa, page)
        if kind is PageType.ZERO:
            return bytes(PAGE)
        return self._secrets() if kind is PageType.SECRETS else page

    def launch_finish(
        self, *, id_block: bytes = b"", id_auth: bytes = b"", author_key: bool = False, host_data: bytes
    ) -> None:
        """SNP_LAUNCH_FINISH: the guest may run.

        :param id_block: 96 bytes, or none: then nobody says what the launch should have been.
        :param id_auth: 4096 bytes with the signatures, where there is an id block.
        :param author_key: the ID key is to be signed by an author's key.
        :param host_data: 32 bytes that reports show.
        """
        self._require(SnpState.LAUNCH)
        if len(host_data) != HOST_DATA_BYTES:
            raise FirmwareError(Status.INVALID_PARAM)
        if id_block:
            self._check_identity(id_block, id_auth, author_key)
        elif author_key:
            raise FirmwareError(Status.INVALID_PARAM)
        self._host_data = host_data
        self._state = SnpState.RUNNING

    def report(self, report_data: bytes, vmpl: int = 0) -> bytes:
        """The attestation report that the guest would get, 1184 bytes, signed by the platform's VCEK.

        :param report_data: 64 bytes of the guest's choice.
        """
        from sevlaunch.rehearsal.endorsement import TCB
        from sevlaunch.sevapi.id_block import IdBlock
        from sevlaunch.sevapi.report import AUTHOR_KEY_EN, REPORT_DATA_BYTES, Report

        self._require(SnpState.RUNNING)
        if len(report_data) != REPORT_DATA_BYTES or not 0 <= vmpl < VMPLS:
            raise FirmwareError(Status.INVALID_PARAM)
        identity = self._identity or IdBlock(self._digest, self._policy)
        tcb = TCB.to_bytes()
        return Report(
            version=REPORT_VERSION,
            guest_svn=identity.guest_svn,
            policy=self._policy,
            family_id=identity.family_id,
            image_id=identity.image_id,
            vmpl=vmpl,
            signature_algo=ECDSA_P384_SHA384,
            current_tcb=tcb,
            platform_info=0,
            key_info=AUTHOR_KEY_EN if any(self._author_key_digest) else 0,
            report_data=report_data,
            measurement=self._digest,
            host_data=self._host_data,
            id_key_digest=self._id_key_digest,
            author_key_digest=self._author_key_digest,
            report_id=self._report_id,
            report_id_ma=b"\xff" * 32,
            reported_tcb=tcb,
            cpuid_family=CPU.family,
            cpuid_model=CPU.model,
            cpuid_stepping=CPU.stepping,
            chip_id=self._platform.chip_id,
            committed_tcb=tcb,
            current_build=BUILD_ID,
            current_minor=API_MINOR,
            current_major=API_MAJOR,
            committed_build=BUILD_ID,
            committed_minor=API_MINOR,
            committed_major=API_MAJOR,
            launch_tcb=tcb,
            launch_mit_vector=0,
            current_mit_vector=0,
        ).signed_by(self._platform.vcek)

    def _require(self, state: SnpState) -> None:
        if self._state is not state:
            raise FirmwareError(Status.INVALID_GUEST_STATE)

    def _check_identity(self, id_block: bytes, id_auth: bytes, author_key: bool) -> None:
        from sevlaunch.sevapi.id_block import VERSION, IdAuthentication, IdBlock, key_digest

        try:
            block, authentication = IdBlock.from_bytes(id_block), IdAuthentication.from_bytes(id_auth)
        except ValueError as error:
            raise FirmwareError(Status.INVALID_PARAM) from error
        if block.version != VERSION:
            raise FirmwareError(Status.BAD_VERSION)
        if not authentication.signs(id_block) or (author_key and not authentication.author_signs_id_key()):
            raise FirmwareError(Status.BAD_SIGNATURE)
        if block.digest != self._digest:
            raise FirmwareError(Status.BAD_MEASUREMENT)
        if block.policy != self._policy:
            raise FirmwareError(Status.POLICY_FAILURE)
        self._identity = block
        self._id_key_digest = key_digest(authentication.id_key)
        if author_key:
            self._author_key_digest = key_digest(authentication.author_key)

    def _secrets(self) -> bytes:
        keys = (self._random(32) for _ in range(VMPLS))
        fms = CPU.family << 16 | CPU.model << 8 | CPU.stepping
        return _SECRETS.pack(_SECRETS_VERSION, 0, fms, 0, self._gosvw, *keys).ljust(PAGE, b"\0")


def _check_cpuid(page: bytes) -> None:
    """The rules that hold on every processor; which features there are is not emulated."""
    count, reserved, more = _CPUID_HEAD.unpack_from(page)
    if count > CPUID_COUNT_MAX or reserved or more:
        raise FirmwareError(Status.INVALID_PARAM)
    expected = bytearray(page)
    for index in range(count):
        at = _CPUID_HEAD.size + index * _CPUID_FUNCTION.size
        function, subleaf, xcr0, xss, eax, ebx, ecx, edx, last = _CPUID_FUNCTION.unpack_from(page, at)
        if function == _XSAVE_LEAF and subleaf in (0, 1):
            # The size depends on XCR0 and XSS, which the page names; guests begin with XCR0 = 1.
            xcr0, xss, ebx = 1, 0, _XSAVE_BASE
        elif function != _XSAVE_LEAF:
            xcr0, xss = 0, 0
        _CPUID_FUNCTION.pack_into(expected, at, function, subleaf, xcr0, xss, eax, ebx, ecx, edx, 0)
        if last:
            raise FirmwareError(Status.INVALID_PARAM)
    if expected != page:
        raise CpuidRefused(bytes(expected))
