"""Answers of the owner's side: a list of named checks, each with yes, no or not checked, and why."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct


class Check(Struct, frozen=True):
    """One thing that was looked at.

    ``ok`` is None where it can't be checked because something was not given; ``detail`` says what was compared.
    """

    name: str
    ok: bool | None
    detail: str

    @property
    def answer(self) -> str:
        """The answer for people."""
        return "not checked" if self.ok is None else "yes" if self.ok else "no"


def all_hold(checks: Sequence[Check]) -> bool:
    """Whether every check was made and says yes."""
    return bool(checks) and all(check.ok is True for check in checks)


def any_fails(checks: Sequence[Check]) -> bool:
    """Whether a check says no."""
    return any(check.ok is False for check in checks)
