"""A file of what an owner requires of every report: YAML, the same demands as the options of `owner report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta
from msgspec.structs import asdict

from sevlaunch.errors import Problem, ProfileError, UsageError
from sevlaunch.files import read_bounded
from sevlaunch.owner.generations import SHORT_ID_BYTES
from sevlaunch.owner.report_wanted import parse_abi, parse_platform
from sevlaunch.profile import source
from sevlaunch.profile.fields import HostData, Parser, SnpPolicyValue, read_blob
from sevlaunch.profile.model.base import Model
from sevlaunch.profile.positions import Positions
from sevlaunch.profile.validation import Reading
from sevlaunch.sevapi.report import CHIP_ID_BYTES, PLATFORM_BITS

_WHAT = "--require"
_BITS64 = (1 << 64) - 1


def _octets(size: int, what: str) -> tuple[Parser, Meta]:
    return (
        Parser(lambda value: read_blob(value, size, what)),
        Meta(description=f"{what}: {size} bytes as hexadecimal or base64, or the path of a file"),
    )


def _chip(value: object) -> bytes:
    try:
        return read_blob(value, CHIP_ID_BYTES, "a chip id")
    except ValueError:
        return read_blob(value, SHORT_ID_BYTES, "a chip id of 64 bytes, or since Turin")


def _bits(value: object) -> int:
    try:
        number = value if isinstance(value, int) and not isinstance(value, bool) else int(str(value), 16)
    except ValueError:
        number = -1
    if not 0 <= number <= _BITS64:
        raise ValueError(f"wanted a number of 64 bits such as 0x3, found {value!r}")
    return number


def _abi(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"wanted a version such as 1.55 in quotes, found {value!r}")
    parse_abi(value)
    return str(value)


def _platform_word(value: object) -> str:
    try:
        parse_platform(str(value))
    except ValueError as error:
        raise ValueError(str(error).removeprefix("--platform: ")) from error
    return str(value)


_Svn = Annotated[int, Meta(ge=0, le=255)]
_Digest = Annotated[bytes, *_octets(48, "a digest")]
_Chip = Annotated[bytes, Parser(_chip), Meta(description="64 bytes, 8 since Turin")]
_Abi = Annotated[str, Parser(_abi), Meta(extra_json_schema={"pattern": r"^[0-9]{1,3}\.[0-9]{1,3}(\.[0-9]{1,3})?$"})]
_Word = Annotated[
    str,
    Parser(_platform_word),
    Meta(extra_json_schema={"enum": [word for name in PLATFORM_BITS for word in (name, f"no-{name}")]}),
]


class MinimumTcb(Model, frozen=True, kw_only=True):
    """The least security version numbers; one that is not said may be any."""

    boot_loader: _Svn | None = None
    tee: _Svn | None = None
    snp: _Svn | None = None
    microcode: _Svn | None = None
    fmc: Annotated[_Svn | None, Meta(description="since Turin")] = None

    def parts(self) -> dict[str, int]:
        """The numbers that are said."""
        return {name: number for name, number in asdict(self).items() if number is not None}


class Requirements(Model, frozen=True, kw_only=True):
    """What every report has to say."""

    digest: Annotated[_Digest | None, Meta(description="the launch digest")] = None
    policy: Annotated[SnpPolicyValue | None, Meta(description="the exact policy")] = None
    policy_at_most: Annotated[
        SnpPolicyValue | None,
        Meta(description="a policy that allows no more than this one, and restricts no less"),
    ] = None
    host_data: HostData | None = None
    id_key_digest: _Digest | None = None
    author_key_digest: _Digest | None = None
    family_id: Annotated[bytes | None, *_octets(16, "the owner's name of a family")] = None
    image_id: Annotated[bytes | None, *_octets(16, "the owner's name of an image")] = None
    require_id_block: Annotated[bool, Meta(description="the launch had an ID block")] = False
    require_author_key: Annotated[bool, Meta(description="the launch had an author key")] = False
    min_guest_svn: Annotated[int, Meta(ge=0, lt=1 << 32)] | None = None
    chip_ids: Annotated[list[_Chip], Meta(description="the only processors to take; empty: any")] = []
    min_tcb: Annotated[MinimumTcb | None, Meta(description="of the reported and the launch TCB")] = None
    min_committed_tcb: Annotated[
        MinimumTcb | None, Meta(description="of the committed TCB, which the host can't go back behind")
    ] = None
    min_abi: Annotated[
        _Abi | None,
        Meta(description="of current and committed firmware: MAJOR.MINOR or MAJOR.MINOR.BUILD, in quotes"),
    ] = None
    platform: Annotated[list[_Word], Meta(description="what PLATFORM_INFO has to say")] = []
    mitigations: Annotated[
        int,
        Parser(_bits),
        Meta(
            description="bits that both mitigation vectors must have",
            extra_json_schema={"type": ["integer", "string"], "minimum": 0},
        ),
    ] = 0
    report_id_ma: Annotated[bytes | None, *_octets(32, "the migration agent's report id")] = None
    no_migration_agent: Annotated[bool, Meta(description="the policy allows none, and there is none")] = False
    vmpl: Annotated[
        Annotated[int, Meta(ge=0, le=3)] | Literal["any"] | None,
        Meta(description="the privilege level that asked for the report; left out: 0"),
    ] = None

    def wanted(self) -> dict[str, Any]:
        """What is said, by the names of :class:`~sevlaunch.owner.report_wanted.WantedReport`."""
        found: dict[str, Any] = {name: value for name, value in asdict(self).items() if value}
        for name in ("policy", "policy_at_most", "min_guest_svn"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        for name in ("min_tcb", "min_committed_tcb"):
            if name in found:
                found[name] = found[name].parts()
        if self.min_abi:
            found["min_abi"] = parse_abi(self.min_abi)
        if self.platform:
            found["platform"] = parse_platform(",".join(self.platform))
        if self.chip_ids:
            found["chip_ids"] = tuple(self.chip_ids)
        if self.vmpl is not None:
            found["vmpl"] = None if self.vmpl == "any" else self.vmpl
        return found


def read_requirements(file: Path) -> Requirements:
    """The requirements in a file; paths in it are relative to it.

    :raise UsageError: with every mistake, each at its line and column, or when it can't be read.
    """
    content = read_bounded(file, _WHAT, source.MAX_BYTES)
    problems: list[Problem] = []
    try:
        node = source.parse(
            content,
            file=str(file),
            base=file.absolute().parent,
            problems=problems,
            what="file of requirements",
        )
    except ProfileError as error:
        raise _refused(file, [*problems, *error.problems]) from error
    reading = Reading(Positions(node))
    found = reading.mapping(Requirements, node.plain())
    reported = {problem.location for problem in problems}
    problems += [problem for problem in reading.problems if problem.location not in reported]
    if not problems:
        try:
            found.wanted()
        except ValueError as error:
            problems.append(Problem(str(error), location=str(Positions(node).nearest(("platform",))), path="platform"))
    if problems:
        raise _refused(file, problems)
    return found


def requirements_schema() -> dict[str, Any]:
    """The JSON Schema of such a file."""
    from sevlaunch.profile.schema import model_schema

    return model_schema(Requirements, "sevlaunch requirements of a report")


def _refused(file: Path, problems: list[Problem]) -> UsageError:
    return UsageError(
        f"{_WHAT}: {file} is refused", problems=problems, hint="what it may hold: sevlaunch schema requirements"
    )
