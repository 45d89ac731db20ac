"""Guest policies: the bits that the secure processor enforces for a guest's whole life.

SEV and SEV-ES: 32 bits, AMD 55766 "SEV API", table "Guest Policy Structure".
SEV-SNP: 64 bits, AMD 56860 "SNP ABI", section "Guest Policy".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from sevlaunch.guest_type import GuestType

SEV_NO_DEBUG = 1 << 0
SEV_NO_KEY_SHARING = 1 << 1
SEV_ES = 1 << 2
SEV_NO_SEND = 1 << 3
SEV_DOMAIN = 1 << 4
SEV_SEV = 1 << 5

SNP_RESERVED_ONE = 1 << 17
SNP_MIGRATE_MA = 1 << 18
SNP_DEBUG = 1 << 19


class PolicyFormat(NamedTuple):
    """One of the two policy layouts.

    ``bits`` names each single bit; ``version`` is the prefix of the minimum firmware version, such as
    ``api-1.51``, whose two bytes stand at ``major_shift`` and ``minor_shift``; ``always`` are bits that must be set.
    """

    title: str
    width: int
    bits: Mapping[str, int]
    meanings: Mapping[str, str]
    version: str
    major_shift: int
    minor_shift: int
    always: int = 0

    @property
    def known(self) -> int:
        """All bits that the format gives a meaning."""
        mask = self.always | 0xFF << self.major_shift | 0xFF << self.minor_shift
        for bit in self.bits.values():
            mask |= bit
        return mask


SEV_POLICY = PolicyFormat(
    title="SEV",
    width=32,
    bits={
        "no-debug": SEV_NO_DEBUG,
        "no-key-sharing": SEV_NO_KEY_SHARING,
        "es": SEV_ES,
        "no-send": SEV_NO_SEND,
        "domain": SEV_DOMAIN,
        "sev": SEV_SEV,
    },
    meanings={
        "no-debug": "debugging of the guest is not allowed",
        "no-key-sharing": "sharing keys with other guests is not allowed",
        "es": "SEV-ES is required",
        "no-send": "sending the guest to another platform is not allowed",
        "domain": "the guest must not be sent to a platform outside its domain",
        "sev": "the guest must not be sent to a platform without SEV",
    },
    version="api",
    major_shift=16,
    minor_shift=24,
)

SNP_POLICY = PolicyFormat(
    title="SEV-SNP",
    width=64,
    bits={
        "smt": 1 << 16,
        "migration-agent": SNP_MIGRATE_MA,
        "debug": SNP_DEBUG,
        "single-socket": 1 << 20,
        "cxl": 1 << 21,
        "aes-256-xts": 1 << 22,
        "rapl-disabled": 1 << 23,
        "ciphertext-hiding": 1 << 24,
        "page-swap-disabled": 1 << 25,
    },
    meanings={
        "smt": "simultaneous multi-threading may be on",
        "migration-agent": "association with a migration agent is allowed",
        "debug": "debugging of the guest is allowed",
        "single-socket": "the guest may run on one socket only",
        "cxl": "CXL devices or memory may be populated",
        "aes-256-xts": "memory encryption must be AES-256-XTS",
        "rapl-disabled": "running average power limit must be off",
        "ciphertext-hiding": "ciphertext hiding must be on",
        "page-swap-disabled": "guest page swap commands must be off",
    },
    version="abi",
    major_shift=8,
    minor_shift=0,
    always=SNP_RESERVED_ONE,
)

# Bits of SNP's that allow something, and those that forbid or demand something.
SNP_PERMISSIONS = sum(SNP_POLICY.bits[name] for name in ("smt", "migration-agent", "debug", "cxl"))
SNP_RESTRICTIONS = sum(SNP_POLICY.bits.values()) - SNP_PERMISSIONS

_DEFAULT_SEV = SEV_NO_DEBUG | SEV_NO_KEY_SHARING | SEV_DOMAIN | SEV_SEV
# SNP: QEMU's own default, SMT allowed, and the bit that must be one.
_DEFAULTS = {
    GuestType.SEV: _DEFAULT_SEV,
    GuestType.SEV_ES: _DEFAULT_SEV | SEV_ES,
    GuestType.SEV_SNP: SNP_RESERVED_ONE | 1 << 16,
}


def policy_format(guest_type: GuestType) -> PolicyFormat:
    """The layout of an encrypted guest's policy."""
    return SNP_POLICY if guest_type is GuestType.SEV_SNP else SEV_POLICY


def default_policy(guest_type: GuestType) -> int:
    """The policy of an encrypted guest that asks for none."""
    return _DEFAULTS[guest_type]


def parse_policy(value: object, policy_format: PolicyFormat) -> int:
    """The number that ``value`` stands for: a number, text such as ``0x33``, or names of bits.

    Names come as a list or separated by commas; ``api-1.51`` (``abi-1.51`` for SNP) asks for a minimum firmware
    version. Bits that must always be set are added to names, never to a number.

    :raise ValueError: when a name is unknown, a reserved bit is set, or a required bit is missing.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str) and re.fullmatch(r"\s*(0[xX][0-9a-fA-F]+|[0-9]+)\s*", value):
        number = int(value, 0) if "x" in value.lower() else int(value)
    elif isinstance(value, str):
        number = _from_names([name.strip() for name in value.split(",") if name.strip()], policy_format)
    elif isinstance(value, (list, tuple)):
        number = _from_names(value, policy_format)
    else:
        raise ValueError(f"wanted a number such as 0x33 or names of policy bits, found {value!r}")
    _check(number, policy_format)
    return number


def describe_policy(number: int, policy_format: PolicyFormat) -> list[str]:
    """The names that :func:`parse_policy` turns back into ``number``, lowest bit first."""
    names = [name for name, bit in policy_format.bits.items() if number & bit]
    major = number >> policy_format.major_shift & 0xFF
    minor = number >> policy_format.minor_shift & 0xFF
    if major or minor:
        names.append(f"{policy_format.version}-{major}.{minor}")
    return names


def policy_warnings(number: int, policy_format: PolicyFormat) -> list[str]:
    """What a policy lets the host do to the guest, each by the name of its bit: debug it, copy its key, move it."""
    bits = policy_format.bits
    if policy_format is SNP_POLICY:
        return [warning for name, warning in _SNP_WARNINGS.items() if number & bits[name]]
    found = [warning for name, warning in _SEV_WARNINGS.items() if not number & bits[name]]
    # Within a domain, the guest goes only to platforms of the same owner.
    if not number & (bits["no-send"] | bits["domain"]):
        found.append(_SEV_SEND_WARNING)
    return found


_SEV_WARNINGS = {
    "no-debug": "the policy lacks no-debug (bit 0): the host may debug the guest: read and write its memory",
    "no-key-sharing": "the policy lacks no-key-sharing (bit 1): the host may start other guests with this guest's key",
}
_SEV_SEND_WARNING = (
    "the policy has neither no-send (bit 3) nor domain (bit 4): the host may send the guest to any other platform"
)
_SNP_WARNINGS = {
    "migration-agent": "the policy has migration-agent (bit 18): the host may give the guest an agent that moves it, "
    "with its keys, to another platform",
    "debug": "the policy has debug (bit 19): the host may debug the guest: read and write its memory",
}


def _from_names(names: object, policy_format: PolicyFormat) -> int:
    assert isinstance(names, (list, tuple))
    number = policy_format.always
    for name in names:
        version = re.fullmatch(rf"{policy_format.version}-(\d{{1,3}})\.(\d{{1,3}})", str(name))
        if version and int(version[1]) < 256 and int(version[2]) < 256:
            number |= int(version[1]) << policy_format.major_shift | int(version[2]) << policy_format.minor_shift
        elif isinstance(name, str) and name in policy_format.bits:
            number |= policy_format.bits[name]
        else:
            import difflib

            known = [*policy_format.bits, f"{policy_format.version}-MAJOR.MINOR"]
            close = difflib.get_close_matches(str(name), known, n=1)
            suggestion = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"unknown {policy_format.title} policy bit {name!r}; {suggestion}")
    return number


def _check(number: int, policy_format: PolicyFormat) -> None:
    if not 0 <= number < 1 << policy_format.width:
        raise ValueError(f"wanted a {policy_format.width}-bit policy, found {number:#x}")
    reserved = number & ~policy_format.known
    if reserved:
        bits = ", ".join(str(bit) for bit in range(policy_format.width) if reserved >> bit & 1)
        raise ValueError(f"policy {number:#x} sets reserved bit {bits}, which must be 0")
    missing = policy_format.always & ~number
    if missing:
        raise ValueError(
            f"policy {number:#x} lacks bit {missing.bit_length() - 1}, which must be 1: use {number | missing:#x}"
        )
