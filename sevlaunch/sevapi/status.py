"""Status codes of the secure processor: AMD 55766 and AMD 56860, tables "Status Codes"; linux/psp-sev.h."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class Status(IntEnum):
    """What the secure processor answers to a command; the names are those of the SEV API."""

    SUCCESS = 0
    INVALID_PLATFORM_STATE = 1
    INVALID_GUEST_STATE = 2
    INVALID_CONFIG = 3
    INVALID_LENGTH = 4
    ALREADY_OWNED = 5
    INVALID_CERTIFICATE = 6
    POLICY_FAILURE = 7
    INACTIVE = 8
    INVALID_ADDRESS = 9
    BAD_SIGNATURE = 10
    BAD_MEASUREMENT = 11
    ASID_OWNED = 12
    INVALID_ASID = 13
    WBINVD_REQUIRED = 14
    DF_FLUSH_REQUIRED = 15
    INVALID_GUEST = 16
    INVALID_COMMAND = 17
    ACTIVE = 18
    HWERROR_PLATFORM = 19
    HWERROR_UNSAFE = 20
    UNSUPPORTED = 21
    INVALID_PARAM = 22
    RESOURCE_LIMIT = 23
    SECURE_DATA_INVALID = 24
    INVALID_PAGE_SIZE = 25
    INVALID_PAGE_STATE = 26
    INVALID_MDATA_ENTRY = 27
    INVALID_PAGE_OWNER = 28
    AEAD_OFLOW = 29
    EXIT_RING_BUFFER = 31
    RMP_INIT_REQUIRED = 32
    BAD_SVN = 33
    BAD_VERSION = 34
    SHUTDOWN_REQUIRED = 35
    UPDATE_FAILED = 36
    RESTORE_REQUIRED = 37
    RMP_INITIALIZATION_FAILED = 38
    INVALID_KEY = 39


class Explanation(NamedTuple):
    """What a code usually comes from, and what to do."""

    cause: str
    remedy: str


EXPLANATIONS = {
    Status.INVALID_PLATFORM_STATE: Explanation(
        "the platform is not initialised, or in a state that does not allow the command",
        "reload kvm_amd and ccp; look for ccp in the kernel log",
    ),
    Status.INVALID_GUEST_STATE: Explanation(
        "the launch is past the step that this command belongs to, such as a secret after LAUNCH_FINISH",
        "start the guest afresh and keep to the order: start, measure, secret, resume",
    ),
    Status.INVALID_CONFIG: Explanation(
        "the platform's configuration does not allow it, such as SEV-ES without ASIDs for it",
        "give SEV-ES ASIDs in the BIOS, or use type sev",
    ),
    Status.INVALID_LENGTH: Explanation(
        "a buffer has the wrong length; often a session or certificate that was encoded twice, or given as a path",
        "make the session again: the blob has 128 bytes, the certificate 2084",
    ),
    Status.INVALID_CERTIFICATE: Explanation(
        "the owner's certificate is not one that the secure processor reads",
        "make the session again, for this platform's PDH",
    ),
    Status.POLICY_FAILURE: Explanation(
        "the policy sets reserved bits, asks for a newer firmware, or for SEV-ES where the platform has none",
        "compare the policy with `sevlaunch policy`, and the platform's version with `sevlaunch host`",
    ),
    Status.INACTIVE: Explanation("the guest is not bound to an ASID", "start the guest afresh"),
    Status.INVALID_ADDRESS: Explanation("an address is not aligned, or not the guest's", "report it to QEMU"),
    Status.BAD_SIGNATURE: Explanation("a signature does not verify", "use the certificates of this platform"),
    Status.BAD_MEASUREMENT: Explanation(
        "a MAC or digest does not match: the session is for another platform or policy, the secret for another launch, "
        "or the id block for other contents",
        "make the session for this PDH and this policy; wrap the secret with this launch's measurement; make the id "
        "block for the digest of this profile (sevlaunch owner digest PROFILE --against ID_BLOCK says what differs)",
    ),
    Status.ASID_OWNED: Explanation("another guest has the ASID", "stop guests, or raise the number of ASIDs"),
    Status.WBINVD_REQUIRED: Explanation("caches have to be written back first", "update the kernel"),
    Status.DF_FLUSH_REQUIRED: Explanation("the data fabric has to be flushed first", "update the kernel"),
    Status.INVALID_GUEST: Explanation("there is no guest of that handle", "leave security.handle out"),
    Status.INVALID_COMMAND: Explanation("the firmware does not know the command", "update the SEV firmware"),
    Status.HWERROR_PLATFORM: Explanation("a hardware fault; the platform can be used again", "reset the platform"),
    Status.HWERROR_UNSAFE: Explanation("a hardware fault; the platform is not safe any more", "restart the machine"),
    Status.UNSUPPORTED: Explanation("this platform does not have the feature", "see `sevlaunch host`"),
    Status.INVALID_PARAM: Explanation("a parameter is out of its range", "report it to QEMU, with the command line"),
    Status.RESOURCE_LIMIT: Explanation("the firmware has no room for one more guest", "stop other SEV guests"),
    Status.SECURE_DATA_INVALID: Explanation("the processor's own data is damaged", "update the BIOS"),
    Status.INVALID_PAGE_SIZE: Explanation("a page of guest memory has the wrong size in the RMP", "update the kernel"),
    Status.INVALID_PAGE_STATE: Explanation("a page of guest memory is in the wrong RMP state", "update the kernel"),
    Status.INVALID_MDATA_ENTRY: Explanation("a metadata entry of a swapped page is wrong", "update the kernel"),
    Status.INVALID_PAGE_OWNER: Explanation("a page belongs to another guest", "update the kernel"),
    Status.RMP_INIT_REQUIRED: Explanation(
        "the RMP is not initialised: SNP is off in the BIOS, or kvm_amd was loaded without it",
        "turn on SNP memory coverage in the BIOS, and IOMMU; see the kernel log for SEV-SNP",
    ),
    Status.BAD_SVN: Explanation("a version is older than what was committed", "update the SEV firmware"),
    Status.BAD_VERSION: Explanation("a structure has a version that the firmware does not know", "make it again"),
    Status.SHUTDOWN_REQUIRED: Explanation("the platform has to be shut down first", "stop the guests, reload kvm_amd"),
    Status.UPDATE_FAILED: Explanation("the update of the firmware failed", "restart the machine, and update again"),
    Status.RESTORE_REQUIRED: Explanation("the firmware has to be restored", "restart the machine"),
    Status.RMP_INITIALIZATION_FAILED: Explanation("the RMP could not be initialised", "update the BIOS"),
    Status.INVALID_KEY: Explanation("a key is not allowed here", "leave vcek_disabled out, or load a VLEK"),
}


class FirmwareError(Exception):
    """The secure processor refuses a command."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"{status.name} ({int(status)})")
        self.status = status


def explain_status(code: int) -> str:
    """A line for people: code, name, likely cause, what to do."""
    try:
        status = Status(code)
    except ValueError:
        return f"the secure processor answered {code}, which the SEV API does not name: update sevlaunch"
    explanation = EXPLANATIONS.get(status)
    if explanation is None:
        return f"the secure processor answered {status.name} ({code})"
    return f"the secure processor answered {status.name} ({code}): {explanation.cause}; {explanation.remedy}"
