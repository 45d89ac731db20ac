"""What became of each part of a domain: the values of the profile, and an outcome for everything in the XML.

Nothing vanishes: what no module gave an outcome is found by :meth:`Outcomes.close` and reported.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.reasons import UNKNOWN, Kind, reason_for

Key = tuple[str | int, ...]
Value = str | int | bool | None
About = Part | Element | None


class Outcome(Struct, frozen=True):
    """What became of one part of the XML: ``element`` such as ``devices/disk/driver@cache``, at its line.

    ``key`` is the dotted key of the profile, where there is one; ``reason`` is empty for what is carried as it is.
    """

    kind: Kind
    line: int
    element: str
    key: str = ""
    reason: str = ""


class Origin(Struct, frozen=True):
    """Where a value of the profile came from: its outcome says it."""

    value: Value
    outcome: Outcome


class Outcomes:
    """The values for the profile, by key, and the outcomes, while a domain is read."""

    def __init__(self) -> None:
        self.values: dict[Key, Origin] = {}
        self.found: list[Outcome] = []
        self._accounted: set[tuple[int, str]] = set()

    def carry(self, key: Key, value: Value, about: About, *also: About, reason: str = "") -> None:
        """Set a value of the profile to what the XML says there (and in ``also``)."""
        self._set(Kind.CARRIED, key, value, reason, about, also)

    def same(self, about: About, reason: str) -> None:
        """What the XML says there is so in sevlaunch without a key in the profile."""
        self._add(Kind.CARRIED, about, (), reason)

    def correct(self, key: Key, value: Value, about: About, reason: str) -> None:
        """Set a value of the profile to something else than the XML says, and tell why."""
        self._set(Kind.CORRECTED, key, value, reason, about, ())

    def note(self, about: About, reason: str) -> None:
        """Tell what sevlaunch does otherwise, where no key of the profile says so."""
        self._add(Kind.CORRECTED, about, (), reason)

    def drop(self, about: About, reason: str) -> None:
        """Leave out a part, or an element with all below it that has no outcome: the guest needs none of it."""
        self._leave(Kind.DROPPED, reason, about)

    def unsupported(self, about: About, reason: str) -> None:
        """As :meth:`drop`, but the guest lacks something."""
        self._leave(Kind.UNSUPPORTED, reason, about)

    def refuse(self, about: About, reason: str) -> None:
        """As :meth:`drop`, for what an encrypted guest can't have."""
        self._leave(Kind.REFUSED, reason, about)

    def close(self, domain: Element) -> None:
        """Give everything that has no outcome yet one: it was not read, so sevlaunch does not know it."""
        touched: set[int] = set()
        self._find_touched(domain, touched)
        waiting = [domain]
        while waiting:
            element = waiting.pop()
            kind, reason = reason_for(element)
            # An element right below the domain is often but a frame: what is in it is known better.
            is_frame = element.parent is domain and element.children and reason == UNKNOWN
            if id(element) not in touched and not is_frame:
                self._leave(kind, reason, element)
                continue
            for part in element.own_parts():
                if not self._has(part):
                    self._leave(*reason_for(element, part.attribute), part)
            waiting += element.children
        self.found.sort(key=lambda outcome: outcome.line)

    def _find_touched(self, element: Element, touched: set[int]) -> bool:
        """Add the elements to ``touched`` that have an outcome somewhere at or below them; False if this has none."""
        below = [self._find_touched(child, touched) for child in element.children]
        if any(below) or any(self._has(part) for part in element.own_parts()):
            touched.add(id(element))
        return id(element) in touched

    def _set(self, kind: Kind, key: Key, value: Value, reason: str, about: About, also: Iterable[About]) -> None:
        outcome = self._add(kind, about, key, reason)
        for other in also:
            self._add(kind, other, key, reason)
        if outcome is not None:
            self.values[key] = Origin(value, outcome)

    def _add(self, kind: Kind, about: About, key: Key, reason: str) -> Outcome | None:
        """An outcome for one part; for an element, its own text."""
        if not about:
            return None
        part = about if isinstance(about, Part) else Part(about)
        self._account([part])
        dotted = ".".join(map(str, key))
        outcome = Outcome(kind, part.line, str(part), dotted, reason)
        self.found.append(outcome)
        return outcome

    def _leave(self, kind: Kind, reason: str, about: About) -> None:
        if not about:
            return
        parts = [about] if isinstance(about, Part) else [part for part in about.parts() if not self._has(part)]
        if not parts:
            return
        self._account(parts)
        self.found.append(Outcome(kind, about.line, str(about), "", reason))

    def _has(self, part: Part) -> bool:
        return (id(part.element), part.attribute) in self._accounted

    def _account(self, parts: Iterable[Part]) -> None:
        self._accounted.update((id(part.element), part.attribute) for part in parts)
