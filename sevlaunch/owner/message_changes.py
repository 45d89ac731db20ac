"""What goes wrong in practice beside the launch digest: changes of what LAUNCH_MEASURE computes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.owner.change import Change
from sevlaunch.profile.policy import SEV_POLICY, describe_policy

EVIDENCE = "evidence"


class Message(Struct, frozen=True):
    """What MEASURE is computed over, and the key: AMD 55766, LAUNCH_MEASURE."""

    tik: bytes
    policy: int
    api_major: int
    api_minor: int
    build_id: int
    digest: bytes


class MessageChange(Struct, frozen=True):
    """A change of what stands beside the digest."""

    change: Change
    apply: Callable[[Message], Message]

    @property
    def subject(self) -> str:
        """What it changes; two changes of the same don't go together."""
        return self.change.subject


def message_changes(
    message: Message, reported_policy: int | None, *, tek: bytes = b"", digests: dict[str, bytes], policy_source: str
) -> Iterator[MessageChange]:
    """The changes of the message.

    :param reported_policy: the policy in the evidence.
    :param tek: the other transport key, where it is at hand.
    :param digests: digests by what would have to be, where there is no launch to compute them from.
    """
    for value, digest in digests.items():
        change = Change("the VMSA generation", value, "another one", "lock")
        yield MessageChange(change, _replacing(digest=digest))
    flipped = (message.policy ^ bit for bit in SEV_POLICY.bits.values())
    candidates = [policy for policy in (reported_policy, *flipped) if policy is not None and policy < 1 << 32]
    for policy in dict.fromkeys(candidates):
        if policy != message.policy:
            change = Change("the policy", _policy(policy), _policy(message.policy), policy_source)
            yield MessageChange(change, _replacing(policy=policy))
    if tek and tek != message.tik:
        change = Change("the TIK", "what --tek has: the files are exchanged", "otherwise", "--tik")
        yield MessageChange(change, _replacing(tik=tek))
    for field, subject in (
        ("api_minor", "the API minor version"),
        ("build_id", "the build"),
        ("api_major", "the API major version"),
    ):
        said = getattr(message, field)
        for byte in range(256):
            if byte != said:
                yield MessageChange(Change(subject, str(byte), str(said), EVIDENCE), _replacing(**{field: byte}))


def _replacing(**fields: object) -> Callable[[Message], Message]:
    return lambda message: replace(message, **fields)


def _policy(policy: int) -> str:
    return f"{policy:#x} ({', '.join(describe_policy(policy, SEV_POLICY)) or 'no bits'})"
