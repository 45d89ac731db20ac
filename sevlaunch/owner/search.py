"""Why does a measurement differ? A bounded search for the one or two changes that would make it match."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

from sevlaunch.errors import UsageError
from sevlaunch.owner.changes import Change, LaunchChange, Message, MessageChange
from sevlaunch.owner.digest import Digests, Launch
from sevlaunch.sevapi.measurement import measure

# The budget is asked after as many tries.
_STRIDE = 1024


@dataclass(frozen=True)
class Target:
    """What the evidence shows: MEASURE (32 bytes) and MNONCE (16)."""

    measure: bytes
    mnonce: bytes


@dataclass(frozen=True)
class Findings:
    """The outcome. ``changes``: empty when nothing matched; ``complete``: everything was tried."""

    changes: tuple[Change, ...]
    tried: int
    complete: bool
    subjects: tuple[str, ...]

    def __str__(self) -> str:
        if self.changes:
            return "would match if " + " and ".join(str(change) for change in self.changes)
        return (
            f"no change of one or two of these explains it ({self.tried} tried"
            + ("" if self.complete else ", then the time was up")
            + f"): {', '.join(self.subjects)}"
        )


def search(
    target: Target,
    launch: Launch | None,
    message: Message,
    launch_changes: Sequence[LaunchChange],
    message_changes: Sequence[MessageChange],
    *,
    go_on: Callable[[], bool],
) -> Findings:
    """The first change, or pair of changes, that gives the measurement; the likely ones are tried first.

    :param launch: what the digest is computed from; None: only ``message.digest`` is known.
    :param message: what is measured, as it is expected.
    :param go_on: asked now and then; False ends the search.
    """
    named = [change.change for change in launch_changes] + [change.change for change in message_changes]
    subjects = tuple(dict.fromkeys(change.subject for change in named))
    tried = 0
    for changes, guess in _guesses(launch, message, launch_changes, message_changes):
        if tried % _STRIDE == 0 and not go_on():
            return Findings((), tried, False, subjects)
        tried += 1
        computed = measure(
            guess.tik,
            api_major=guess.api_major,
            api_minor=guess.api_minor,
            build_id=guess.build_id,
            policy=guess.policy,
            digest=guess.digest,
            mnonce=target.mnonce,
        )
        if hmac.compare_digest(computed, target.measure):
            return Findings(changes, tried, True, subjects)
    return Findings((), tried, True, subjects)


def _guesses(
    launch: Launch | None,
    message: Message,
    launch_changes: Sequence[LaunchChange],
    message_changes: Sequence[MessageChange],
) -> Iterator[tuple[tuple[Change, ...], Message]]:
    """One change of the launch, one of the message; then two of the launch, one of each, two of the message."""
    shared = Digests()
    launches: list[tuple[Change, bytes]] = []
    if launch is not None:
        for change in launch_changes:
            digest = _digest(shared, change.apply(launch))
            if digest is not None:
                launches.append((change.change, digest))
                yield (change.change,), replace(message, digest=digest)
    messages = [(change.change, change.apply(message)) for change in message_changes]
    yield from (((change,), changed) for change, changed in messages)
    if launch is not None:
        for first, second in combinations(launch_changes, 2):
            if first.subject != second.subject:
                digest = _digest(shared, second.apply(first.apply(launch)))
                if digest is not None:
                    yield (first.change, second.change), replace(message, digest=digest)
    for (first_change, changed), (second_change, digest) in product(messages, launches):
        yield (second_change, first_change), replace(changed, digest=digest)
    for first_of, second_of in combinations(message_changes, 2):
        if first_of.subject != second_of.subject:
            yield (first_of.change, second_of.change), second_of.apply(first_of.apply(message))


def _digest(shared: Digests, launch: Launch) -> bytes | None:
    try:
        return shared.of(launch)
    except UsageError:
        # A launch that can't be, such as kernel hashes with a firmware that has no place for them.
        return None
