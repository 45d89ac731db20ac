"""Answers of the owner's side: a list of named checks, each with yes, no or not checked, and why."""

from __future__ import annotations

from msgspec import Struct


class Check(Struct, frozen=True):
    """One thing that was looked at.

    ``ok`` is None where it can't be checked because something was not given; ``detail`` says what was looked at.
    Where two values were compared, ``expected`` and ``found`` have them.
    """

    name: str
    ok: bool | None
    detail: str
    expected: str | None = None
    found: str | None = None

    @classmethod
    def compared(cls, name: str, ok: bool | None, expected: str, found: str) -> Check:
        """The check of one value against the expected one."""
        detail = found if expected == found else f"wanted {expected}, found {found}"
        return cls(name, ok, detail, expected, found)

    @property
    def answer(self) -> str:
        """The answer for people."""
        return "not checked" if self.ok is None else "yes" if self.ok else "no"


class Verdict(Struct, frozen=True):
    """The answer that checks come to."""

    checks: tuple[Check, ...]

    @property
    def verified(self) -> bool:
        """Whether every check was made and says yes."""
        return bool(self.checks) and all(check.ok is True for check in self.checks)

    @property
    def failed(self) -> bool:
        """Whether a check says no. Neither verified nor failed: something was not given."""
        return any(check.ok is False for check in self.checks)
