"""Status codes of the secure processor: AMD 55766 table "Status Codes", linux/psp-sev.h ``enum sev_ret_code``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


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


@dataclass(frozen=True)
class Explanation:
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
        "a MAC does not match: the session is for another platform or policy, or the secret for another launch",
        "make the session for this PDH and this policy; wrap the secret with this launch's measurement",
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
