"""Lists of checks for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sevlaunch.cli.output import say, table

if TYPE_CHECKING:
    from sevlaunch.owner.checks import Check
    from sevlaunch.owner.search import Findings


def print_checks(checks: Sequence[Check]) -> None:
    """Print the checks with their answers, one in each line."""
    rows = [(check.name, check.answer, check.detail) for check in checks]
    say(*table(("CHECK", "ANSWER", "WHAT WAS COMPARED"), rows))


def checks_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The checks as plain data; ``expected`` and ``found`` where two values were compared."""
    found = [msgspec.to_builtins(check) for check in checks]
    return [{key: value for key, value in one.items() if key == "ok" or value is not None} for one in found]


def search_json(findings: Findings | None) -> dict[str, Any] | None:
    """What a search for an explanation found, as plain data."""
    if findings is None:
        return None
    return {
        "changes": findings.changes,
        "text": str(findings),
        "tried": findings.tried,
        "complete": findings.complete,
        "subjects": list(findings.subjects),
    }
