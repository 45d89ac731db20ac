"""A tree of checks as data, and what comes of judging a host by it. No look at the machine: that was the probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.host.model import Host

# What a host may be wanted for: an ordinary guest (kvm: one that insists on KVM), each encrypted one, a rehearsal.
PURPOSES = (GuestType.NONE, "kvm", GuestType.SEV, GuestType.SEV_ES, GuestType.SEV_SNP, "rehearsal")
ANY: frozenset[str] = frozenset(PURPOSES)
ENCRYPTED: frozenset[str] = frozenset(one for one in GuestType if one.encrypted)
ES: frozenset[str] = frozenset(one for one in GuestType if one.encrypts_registers)
SNP: frozenset[str] = frozenset((GuestType.SEV_SNP,))
LOCKERS: frozenset[str] = frozenset(one for one in GuestType if one.locks_memory)
NOBODY: frozenset[str] = frozenset()


class Result(StrEnum):
    """How a check ended. A warning stops no guest; unknown: it could not be looked at."""

    OK = "ok"
    FAILED = "failed"
    WARNING = "warning"
    SKIPPED = "skipped"
    UNKNOWN = "unknown"


class Judgement(Struct, frozen=True):
    """What was found, and how to fix it where that is needed."""

    result: Result
    found: str
    remedy: str = ""


class HostCheck(Struct, frozen=True):
    """One thing to look at.

    :param name: dotted and stable, for programs.
    :param judge: from the facts to a judgement.
    :param why: why it matters.
    :param needed_by: the purposes that can't be had without it; for others a failure is a warning.
    :param concerns: the purposes that it tells something about; the others don't see it.
    :param root: whether only root can look at it everywhere.
    """

    name: str
    title: str
    judge: Callable[[Host], Judgement]
    why: str
    needed_by: frozenset[str] = NOBODY
    concerns: frozenset[str] = ANY
    root: bool = False
    children: tuple[HostCheck, ...] = ()


class Finding(Struct, frozen=True):
    """A check with its judgement."""

    name: str
    title: str
    result: Result
    found: str
    why: str
    remedy: str
    needed_by: tuple[str, ...]
    root: bool
    children: tuple[Finding, ...] = ()

    def walk(self) -> Iterator[Finding]:
        """This finding and everything below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_dict(self) -> dict[str, Any]:
        """The finding for programs."""
        return {
            "name": self.name,
            "title": self.title,
            "result": self.result.value,
            "found": self.found,
            "why": self.why,
            "remedy": self.remedy,
            "needed_by": list(self.needed_by),
            "needs_root": self.root,
            "checks": [child.to_dict() for child in self.children],
        }


def ok(found: str) -> Judgement:
    """All is well."""
    return Judgement(Result.OK, found)


def failed(found: str, remedy: str) -> Judgement:
    """Those who need it can't run here."""
    return Judgement(Result.FAILED, found, remedy)


def warning(found: str, remedy: str) -> Judgement:
    """It stops nobody, and should be known."""
    return Judgement(Result.WARNING, found, remedy)


def unknown(found: str, remedy: str = "") -> Judgement:
    """It could not be looked at."""
    return Judgement(Result.UNKNOWN, found, remedy)


def skipped(found: str) -> Judgement:
    """There is no sense in looking."""
    return Judgement(Result.SKIPPED, found)


def judge(checks: Sequence[HostCheck], host: Host, purpose: str | None = None) -> list[Finding]:
    """The findings of ``checks`` on ``host``; with a ``purpose``, only those that concern it."""
    return [_judge(check, host, purpose) for check in checks if purpose is None or purpose in check.concerns]


def failures(findings: Sequence[Finding]) -> list[tuple[Finding, Finding]]:
    """Every failed finding, each with the top of its branch."""
    return [(top, finding) for top in findings for finding in top.walk() if finding.result is Result.FAILED]


def _judge(check: HostCheck, host: Host, purpose: str | None, broken: str = "") -> Finding:
    judgement = skipped(f"not looked at: {broken}") if broken else check.judge(host)
    # A warning of a judge's own is no reason to look no further.
    stopped = judgement.result in (Result.FAILED, Result.SKIPPED)
    reason = broken or (f"{check.title} {judgement.result.value}" if stopped else "")
    result = judgement.result
    if result is Result.FAILED and (purpose not in check.needed_by if purpose else not check.needed_by):
        result = Result.WARNING
    return Finding(
        name=check.name,
        title=check.title,
        result=result,
        found=judgement.found,
        why=check.why,
        remedy=judgement.remedy,
        needed_by=tuple(name for name in PURPOSES if name in check.needed_by),
        root=check.root,
        children=tuple(
            _judge(child, host, purpose, reason)
            for child in check.children
            if purpose is None or purpose in child.concerns
        ),
    )
