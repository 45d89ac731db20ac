"""What `owner report` and `attest` answer, and why not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, print_json, progress, say
from sevlaunch.cli.owner import options as launch

if TYPE_CHECKING:
    from sevlaunch.cli.owner.report_options import ReportOptions
    from sevlaunch.owner.collected import ReportFile
    from sevlaunch.owner.expected_report import Expected
    from sevlaunch.owner.report import ReportVerdict
    from sevlaunch.owner.search import Findings


def why_not(given: ReportOptions, expected: Expected | None, verdict: ReportVerdict) -> Findings | None:
    """What would have to be otherwise, for a report of another digest than the expected launch gives."""
    if expected is None or expected.digest == verdict.report.measurement:
        return None
    from sevlaunch.owner.others import read_others

    end = time.monotonic() + launch.SEARCH_LIMIT
    with progress("looking for what differs"):
        others = read_others(given.tries)
        return expected.why_not(verdict.report.measurement, others, go_on=lambda: time.monotonic() < end)


def print_claims(found: ReportFile) -> None:
    """Print the claims of a report as trustee's policies see them."""
    from sevlaunch.owner.generations import has_fmc, possible_generations
    from sevlaunch.owner.trustee import policy_input
    from sevlaunch.sevapi.report import Report, Tcb

    report = Report.from_bytes(found.content)
    fmc = has_fmc(possible_generations(report)[0])
    print_json(policy_input(report, Tcb.from_bytes(report.reported_tcb, turin=fmc)))
    note("sevlaunch: note: these are the report's own words: nothing was checked")


def show_answer(
    verdict: ReportVerdict,
    findings: Findings | None,
    given: ReportOptions,
    output: Format,
    more: dict[str, Any] | None = None,
) -> None:
    """Print the answer; ``more``: further fields of the JSON."""
    from sevlaunch.cli.owner.checks import checks_json, print_checks, search_json
    from sevlaunch.owner.report import report_fields, report_lines

    if output is Format.JSON:
        print_json(
            {
                "ok": verdict.verified,
                "rehearsal": given.rehearsal,
                "generation": verdict.generation,
                "checks": checks_json(verdict.checks),
                "not_compared": list(verdict.not_compared),
                "lacks": [{"name": lack.name, "where": lack.where} for lack in verdict.lacks],
                "search": search_json(findings),
                "report": report_fields(verdict),
                **(more or {}),
            }
        )
        return
    print_checks(verdict.checks)
    say("the report says:", *(f"  {name:<16} {value}" for name, value in report_lines(verdict)))
    say(*(f"lacking, and to be had: {lack}" for lack in verdict.lacks))
    if verdict.not_compared:
        say(f"not compared, as not asked for: {', '.join(verdict.not_compared)}")
    if findings is not None:
        say(f"measurement: {findings}")
    elif given.digest is not None and any(one.name == "measurement" and one.ok is False for one in verdict.checks):
        say("with --profile or --lock in place of --digest, what differs is searched for")
    mark = "REHEARSAL, which proves nothing: " if given.rehearsal else ""
    say(f"{mark}{'yes: every check holds' if verdict.verified else 'no: a check fails'}")
