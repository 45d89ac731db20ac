"""What a launch lock file asks of an SNP guest's report."""

from __future__ import annotations

from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.lock import Lock
from sevlaunch.owner.report_wanted import WantedReport

_NO_HOST_DATA = bytes(32)
_NO_KEY = bytes(48)


def report_of_lock(lock: Lock) -> WantedReport:
    """Digest, policy, host data, and the digests of the ID block's keys; zeros where the launch has none.

    :raise UsageError: when the lock is of a launch that has no report.
    """
    if lock.type is not GuestType.SEV_SNP:
        raise UsageError(
            f"the lock is of a {lock.type} launch, which has no report",
            hint="owner verify takes locks of SEV and SEV-ES",
        )
    (digest,) = lock.digests.values()
    block = lock.id_block
    return WantedReport(
        digest=bytes.fromhex(digest),
        policy=lock.policy,
        host_data=bytes.fromhex(lock.host_data) if lock.host_data else _NO_HOST_DATA,
        id_key_digest=bytes.fromhex(block.id_key_digest) if block else _NO_KEY,
        author_key_digest=bytes.fromhex(block.author_key_digest) if block and block.author_key_digest else _NO_KEY,
    )
