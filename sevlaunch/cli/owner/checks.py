"""Lists of checks for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sevlaunch.cli.output import table

if TYPE_CHECKING:
    from sevlaunch.owner.checks import Check


def checks_table(checks: Sequence[Check]) -> str:
    """The checks with their answers, one in each line."""
    return table(
        ("CHECK", "ANSWER", "WHAT WAS COMPARED"), [(check.name, check.answer, check.detail) for check in checks]
    )


def checks_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The checks as plain data."""
    return [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in checks]
