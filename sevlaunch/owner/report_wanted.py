"""What an owner asks of an SNP attestation report, and whether it says so: AMD 56860 table "ATTESTATION_REPORT"."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from sevlaunch.errors import InsecureUse
from sevlaunch.owner.checks import Check
from sevlaunch.owner.generations import has_fmc
from sevlaunch.profile.policy import (
    SNP_DEBUG,
    SNP_MIGRATE_MA,
    SNP_PERMISSIONS,
    SNP_POLICY,
    SNP_RESTRICTIONS,
    describe_policy,
)
from sevlaunch.sevapi.report import NO_MIGRATION_AGENT, PLATFORM_BITS, Report, Tcb

_VMPLS = range(4)
_MAX_VERSION = 255
_TCB_BYTES = 8
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,2}|[0-9]{1,3}")
_ABI_VERSION = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})(?:\.([0-9]{1,3}))?")
# The policy's least ABI, major above minor.
_ABI = 0xFFFF
_WHOLE_TCB = re.compile(r"0[xX]([0-9a-fA-F]{16})")

# Without these any guest, any policy, or a report of long ago would do: each is asked for, or waived by name.
ASKED = {"digest": "--digest", "policy": "--policy", "report_data": "--report-data"}


class WantedReport(Struct, frozen=True):
    """What the owner wants of a report; None, or nothing, is not compared.

    ``waived``: which of :data:`ASKED` need not be given. ``policy_at_most``: a policy that allows no more than this,
    and restricts no less. ``min_tcb``: the least security version numbers by their names in :class:`Tcb`, or all as the
    8 bytes of a TCB, of reported and launch TCB; ``min_committed_tcb``: of the committed one. ``min_abi``: of current
    and committed firmware, major and minor, and perhaps build. ``platform``: what has to be set in PLATFORM_INFO, by
    the names in :data:`PLATFORM_BITS`, True, or clear, False. ``mitigations``: bits that both mitigation vectors have
    to have. ``chip_ids``: the processors to take, 8 or 64 bytes each; empty: any. ``vmpl``: of who asked for the
    report; None: 0 to 3.
    """

    digest: bytes | None = None
    policy: int | None = None
    policy_at_most: int | None = None
    host_data: bytes | None = None
    report_data: bytes | None = None
    id_key_digest: bytes | None = None
    author_key_digest: bytes | None = None
    family_id: bytes | None = None
    image_id: bytes | None = None
    require_id_block: bool = False
    require_author_key: bool = False
    chip_ids: tuple[bytes, ...] = ()
    report_id_ma: bytes | None = None
    min_guest_svn: int | None = None
    min_tcb: Mapping[str, int] | bytes = field(default_factory=dict)
    min_committed_tcb: Mapping[str, int] | bytes = field(default_factory=dict)
    min_abi: tuple[int, ...] | None = None
    platform: Mapping[str, bool] = field(default_factory=dict)
    mitigations: int = 0
    vmpl: int | None = 0
    no_migration_agent: bool = False
    allow_debug: bool = False
    waived: frozenset[str] = frozenset()

    def require_asked(self) -> None:
        """Make sure that the answer would mean something.

        :raise InsecureUse: when something is neither given nor waived.
        """
        said = {"digest": self.digest, "policy": self._policy, "report_data": self.report_data}
        missing = [option for name, option in ASKED.items() if said[name] is None and name not in self.waived]
        if missing:
            raise InsecureUse(
                f"the answer would prove nothing without {', '.join(missing)}: any guest's report, or an old one, "
                "would do",
                hint=f"give them, or do without by name: {' '.join(waiver_of(option) for option in missing)}",
            )

    @property
    def _policy(self) -> int | None:
        return self.policy_at_most if self.policy is None else self.policy

    @property
    def not_compared(self) -> tuple[str, ...]:
        """What is not asked for, of what matters most."""
        given = {
            "measurement": self.digest,
            "policy": self._policy,
            "report data": self.report_data,
            "host data": self.host_data,
            "minimum TCB": self.min_tcb or None,
        }
        return tuple(name for name, value in given.items() if value is None)


def waiver_of(option: str) -> str:
    """The option that does without one of :data:`ASKED`, such as ``--any-digest``."""
    return option.replace("--", "--any-", 1)


def check_wanted(report: Report, wanted: WantedReport, *, generation: str) -> list[Check]:
    """What the owner asked for, and that debugging is not allowed and a guest asked for the report.

    :param generation: of the processor, where it is known.
    """
    return [
        *_compared(report, wanted),
        *_minima(report, wanted, fmc=has_fmc(generation)),
        *_guest(report, wanted),
        *_platform(report, wanted),
    ]


def _compared(report: Report, wanted: WantedReport) -> list[Check]:
    checks: list[Check] = []
    for name, found, value in (
        ("measurement", report.measurement, wanted.digest),
        ("host data", report.host_data, wanted.host_data),
        ("report data", report.report_data, wanted.report_data),
        ("id key digest", report.id_key_digest, wanted.id_key_digest),
        ("author key digest", report.author_key_digest, wanted.author_key_digest),
        ("family id", report.family_id, wanted.family_id),
        ("image id", report.image_id, wanted.image_id),
        ("report id of the migration agent", report.report_id_ma, wanted.report_id_ma),
    ):
        if value is not None:
            same = hmac.compare_digest(found, value)
            checks.append(Check.compared(name, same, value.hex(), found.hex()))
    if wanted.policy is not None:
        same = report.policy == wanted.policy
        checks.append(Check.compared("policy", same, show_policy(wanted.policy), show_policy(report.policy)))
    if wanted.policy_at_most is not None:
        within = _is_within(report.policy, wanted.policy_at_most)
        at_most = f"at most {show_policy(wanted.policy_at_most)}"
        checks.append(Check.compared("policy at most", within, at_most, show_policy(report.policy)))
    if wanted.chip_ids:
        pinned = {one.ljust(len(report.chip_id), b"\0") for one in wanted.chip_ids}
        # A host that hides which processor it is has none that is wanted, whatever the zeros mean.
        known = any(report.chip_id) and report.chip_id in pinned
        shown = " or ".join(one.hex() for one in wanted.chip_ids)
        checks.append(Check.compared("wanted chip", known, shown, report.chip_id.hex()))
    if wanted.require_id_block:
        found = report.id_key_digest
        checks.append(
            Check.compared("ID block", any(found), "there is one", "key " + found.hex() if any(found) else "none")
        )
    if wanted.require_author_key:
        there = report.author_key_enabled and any(report.author_key_digest)
        shown = f"key {report.author_key_digest.hex()}" if there else "none"
        checks.append(Check.compared("author key", there, "there is one", shown))
    return checks


def _is_within(policy: int, most: int) -> bool:
    """Whether ``policy`` allows nothing that ``most`` does not, restricts all that it does, and asks for its ABI."""
    if policy & ~SNP_POLICY.known or policy & SNP_PERMISSIONS & ~most or most & SNP_RESTRICTIONS & ~policy:
        return False
    return policy & _ABI >= most & _ABI


def _minima(report: Report, wanted: WantedReport, *, fmc: bool) -> list[Check]:
    checks: list[Check] = []
    if wanted.min_guest_svn is not None:
        enough = report.guest_svn >= wanted.min_guest_svn
        checks.append(Check.compared("guest SVN", enough, f"at least {wanted.min_guest_svn}", str(report.guest_svn)))
    for name, content, minimum in (
        ("reported", report.reported_tcb, wanted.min_tcb),
        ("launch", report.launch_tcb, wanted.min_tcb),
        ("committed", report.committed_tcb, wanted.min_committed_tcb),
    ):
        if minimum:
            checks.append(_minimum(name, Tcb.from_bytes(content, turin=fmc), minimum, fmc=fmc))
    if wanted.min_abi is not None:
        least = wanted.min_abi
        for name, version in (
            ("current", (report.current_major, report.current_minor, report.current_build)),
            ("committed", (report.committed_major, report.committed_minor, report.committed_build)),
        ):
            found = version[: len(least)]
            shown = f"at least {_dotted(least)}"
            checks.append(Check.compared(f"minimum ABI, {name}", found >= least, shown, _dotted(found)))
    return checks


def _dotted(numbers: Sequence[int]) -> str:
    return ".".join(map(str, numbers))


def _minimum(name: str, found: Tcb, minimum: Mapping[str, int] | bytes, *, fmc: bool) -> Check:
    if isinstance(minimum, bytes):
        minimum = tcb_parts(Tcb.from_bytes(minimum, turin=fmc))
    # What the processor does not have, FMC before Turin, is below every minimum.
    numbers = {part: -1 if number is None else number for part, number in found._asdict().items()}
    enough = all(numbers[part] >= least for part, least in minimum.items())
    wanted = " ".join(f"{part}={least}" for part, least in minimum.items())
    return Check.compared(f"minimum TCB, {name}", enough, f"at least {wanted}", show_tcb(found))


def _guest(report: Report, wanted: WantedReport) -> list[Check]:
    debug = bool(report.policy & SNP_DEBUG)
    detail = "the policy lets the host read and write the guest's memory" if debug else "not allowed by the policy"
    # The host can ask for a report, too, which then proves nothing about who speaks: VMPL 0xffffffff.
    allowed, shown = (_VMPLS, "0 to 3") if wanted.vmpl is None else ((wanted.vmpl,), str(wanted.vmpl))
    checks = [
        Check("debug", wanted.allow_debug or not debug, detail),
        Check.compared("VMPL", report.vmpl in allowed, shown, str(report.vmpl)),
    ]
    if wanted.no_migration_agent:
        allowed_one = bool(report.policy & SNP_MIGRATE_MA)
        none = not allowed_one and report.report_id_ma == NO_MIGRATION_AGENT
        said = "may have one" if allowed_one else "none" if none else f"is {report.report_id_ma.hex()}"
        checks.append(Check.compared("migration agent", none, "none", said))
    return checks


def _platform(report: Report, wanted: WantedReport) -> list[Check]:
    checks: list[Check] = []
    for name, on in wanted.platform.items():
        found = name in report.platform_bits
        shown = {True: "set", False: "clear"}
        checks.append(Check.compared(f"platform: {name}", found == on, shown[on], shown[found]))
    if wanted.mitigations:
        for name, vector in (("launch", report.launch_mit_vector), ("current", report.current_mit_vector)):
            enough = vector & wanted.mitigations == wanted.mitigations
            least = f"at least {wanted.mitigations:#x}"
            checks.append(Check.compared(f"mitigations, {name}", enough, least, f"{vector:#x}"))
    return checks


def parse_tcb(text: str, option: str = "--min-tcb") -> dict[str, int] | bytes:
    """The numbers in text such as ``boot_loader=3,snp=0x8``, or the TCB that 16 hexadecimal digits stand for.

    :param option: what the text is that of, for the error.
    :raise ValueError: when it is none.
    """
    if whole := _WHOLE_TCB.fullmatch(text.strip()):
        return int(whole[1], 16).to_bytes(_TCB_BYTES, "little")
    found: dict[str, int] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        value = int(number, 0 if number[:2] in ("0x", "0X") else 10) if _NUMBER.fullmatch(number) else -1
        if name not in Tcb._fields or not 0 <= value <= _MAX_VERSION:
            raise ValueError(
                f"{option}: wanted NAME=0 to 255 with one of {', '.join(Tcb._fields)}, or 0x and 16 digits; found "
                f"{part!r}"
            )
        found[name] = value
    return found


def parse_abi(text: str) -> tuple[int, ...]:
    """The version of a firmware in text such as ``1.55`` or ``1.55.21``: major, minor and perhaps build.

    :raise ValueError: when it is none.
    """
    found = _ABI_VERSION.fullmatch(text)
    numbers = tuple(int(part) for part in found.groups() if part is not None) if found else ()
    if not numbers or max(numbers) > _MAX_VERSION:
        raise ValueError(f"wanted a version such as 1.55 or 1.55.21, found {text!r}")
    return numbers


def parse_platform(text: str) -> dict[str, bool]:
    """What text such as ``alias-check-complete,no-smt`` wants of PLATFORM_INFO.

    :raise ValueError: when there are other names, or one is both wanted and not.
    """
    found: dict[str, bool] = {}
    for part in text.split(","):
        word = part.strip()
        name = word.removeprefix("no-")
        if name not in PLATFORM_BITS or name in found:
            raise ValueError(
                f"--platform: wanted, each once, {', '.join(PLATFORM_BITS)}, or no- and one; found {word!r}"
            )
        found[name] = name == word
    return found


def tcb_parts(tcb: Tcb) -> dict[str, int]:
    """The numbers that the processor has, by their names."""
    return {name: number for name, number in tcb._asdict().items() if number is not None}


def show_tcb(tcb: Tcb) -> str:
    """The numbers with their names, as `--min-tcb` takes them."""
    return ",".join(f"{name}={number}" for name, number in tcb_parts(tcb).items())


def show_policy(policy: int) -> str:
    """The number with the names of its bits."""
    return f"{policy:#x} ({', '.join(describe_policy(policy, SNP_POLICY)) or 'no bits'})"
