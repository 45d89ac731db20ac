"""Why does a measurement or a digest differ? A bounded search for the one or two changes that would make it match."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, combinations, product

from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.owner.change import Change, LaunchChange
from sevlaunch.owner.digest import Digests, Launch
from sevlaunch.owner.message_changes import Message, MessageChange
from sevlaunch.sevapi.measurement import KeyedMeasure

# The budget is asked after as many tries. One for SNP may hash a whole firmware, or the pages of hundreds of vCPUs.
_STRIDE = 1024
_SNP_STRIDE = 32

_OTHER_TIK = "is the TIK that of this launch's session?"
# Pages alone extend a launch digest: AMD 56860, SNP_LAUNCH_UPDATE.
_NOT_COVERED = "a digest does not cover policy, HOST_DATA and ID block: those were not tried"


class Target(Struct, frozen=True):
    """What the evidence shows: MEASURE (32 bytes) and MNONCE (16)."""

    measure: bytes
    mnonce: bytes


class Findings(Struct, frozen=True):
    """The outcome. ``changes``: empty when nothing matched; ``complete``: everything was tried."""

    changes: tuple[Change, ...]
    tried: int
    complete: bool
    subjects: tuple[str, ...]
    remark: str

    def __str__(self) -> str:
        if self.changes:
            return "would match if " + " and ".join(str(change) for change in self.changes)
        return (
            f"no change of one or two of these explains it ({self.tried} tried"
            + ("" if self.complete else ", then the time was up")
            + f"): {', '.join(self.subjects)}; {self.remark}"
        )


def search(
    target: Target,
    launches: Sequence[Launch],
    message: Message,
    launch_changes: Sequence[LaunchChange],
    message_changes: Sequence[MessageChange],
    *,
    go_on: Callable[[], bool],
) -> Findings:
    """The first change, or pair of changes, that gives the measurement; the likely ones are tried first.

    :param launches: launches that are as good as each other; none: only ``message.digest`` is known.
    :param message: what is measured, as it is expected.
    :param go_on: asked now and then; False ends the search.
    """
    named = [change.change for change in launch_changes] + [change.change for change in message_changes]
    subjects = tuple(dict.fromkeys(change.subject for change in named))
    keyed: dict[bytes, KeyedMeasure] = {}
    tried = 0
    for changes, guess, digests in _guesses(launches, message, launch_changes, message_changes):
        if guess.tik not in keyed:
            keyed[guess.tik] = KeyedMeasure(guess.tik)
        compute = keyed[guess.tik]
        for further, digest in digests:
            if tried % _STRIDE == 0 and not go_on():
                return Findings((), tried, False, subjects, _OTHER_TIK)
            tried += 1
            computed = compute.of(guess.api_major, guess.api_minor, guess.build_id, guess.policy, digest, target.mnonce)
            if hmac.compare_digest(computed, target.measure):
                return Findings((*further, *changes), tried, True, subjects, _OTHER_TIK)
    return Findings((), tried, True, subjects, _OTHER_TIK)


def search_digest(
    digest: bytes, launches: Sequence[Launch], changes: Sequence[LaunchChange], *, go_on: Callable[[], bool]
) -> Findings:
    """The first change, or pair of changes, that gives ``digest``, of 32 bytes, for SNP 48.

    :param launches: what is expected; those are as good as each other.
    :param go_on: asked now and then; False ends the search.
    """
    subjects = tuple(dict.fromkeys(change.subject for change in changes))
    shared = Digests()
    tried = 0
    for found, computed in chain(_changed(shared, launches, changes), _changed_twice(shared, launches, changes)):
        if tried % _SNP_STRIDE == 0 and not go_on():
            return Findings((), tried, False, subjects, _NOT_COVERED)
        tried += 1
        if hmac.compare_digest(computed, digest):
            return Findings(found, tried, True, subjects, _NOT_COVERED)
    return Findings((), tried, True, subjects, _NOT_COVERED)


_Digests = Iterable[tuple[tuple[Change, ...], bytes]]


def _guesses(
    launches: Sequence[Launch],
    message: Message,
    launch_changes: Sequence[LaunchChange],
    message_changes: Sequence[MessageChange],
) -> Iterator[tuple[tuple[Change, ...], Message, _Digests]]:
    """Messages, each with the digests to try in it: one change of the launch, one of the message, then pairs."""
    shared = Digests()
    unchanged: _Digests = [((), shared.of(launch)) for launch in launches] or [((), message.digest)]
    once = list(_changed(shared, launches, launch_changes))
    yield (), message, once
    messages = [(change, change.apply(message)) for change in message_changes]
    for change, changed in messages:
        yield (change.change,), changed, unchanged
    yield (), message, _changed_twice(shared, launches, launch_changes)
    for change, changed in messages:
        yield (change.change,), changed, once
    for index, (change, changed) in enumerate(messages):
        for second in message_changes[index + 1 :]:
            if change.subject != second.subject:
                yield (change.change, second.change), second.apply(changed), unchanged


def _changed(shared: Digests, launches: Sequence[Launch], changes: Sequence[LaunchChange]) -> _Digests:
    for launch, change in product(launches, changes):
        yield from _digest(shared, change.apply(launch), change.change)


def _changed_twice(shared: Digests, launches: Sequence[Launch], changes: Sequence[LaunchChange]) -> _Digests:
    common = [change for change in changes if not change.alone]
    for launch, (first, second) in product(launches, combinations(common, 2)):
        if first.subject != second.subject:
            yield from _digest(shared, second.apply(first.apply(launch)), first.change, second.change)


def _digest(shared: Digests, launch: Launch, *changes: Change) -> _Digests:
    # A launch that can't be, such as kernel hashes with a firmware that has no place for them, has no digest.
    with suppress(UsageError):
        yield changes, shared.of(launch)
