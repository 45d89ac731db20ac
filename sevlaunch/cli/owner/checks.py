"""Lists of checks for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from sevlaunch.cli.output import table

if TYPE_CHECKING:
    from sevlaunch.owner.checks import Check


def checks_table(checks: Sequence[Check]) -> str:
    """The checks with their answers, one in each line."""
    return table(
        ("CHECK", "ANSWER", "WHAT WAS COMPARED"), [(check.name, check.answer, check.detail) for check in checks]
    )


def checks_json(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """The checks as plain data; ``expected`` and ``found`` where two values were compared."""
    found = [msgspec.to_builtins(check) for check in checks]
    return [{key: value for key, value in one.items() if key == "ok" or value is not None} for one in found]
