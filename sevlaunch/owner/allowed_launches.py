"""The launches that an owner allows, out of a profile's setup or lock files, with each number of vCPUs that may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from sevlaunch.errors import UsageError
from sevlaunch.owner.digest import Digests
from sevlaunch.owner.expected_report import require_snp, setup_of_lock
from sevlaunch.owner.identity import report_shows
from sevlaunch.owner.locked_report import report_of_lock
from sevlaunch.owner.reference_values import AllowedLaunch
from sevlaunch.owner.setup import Setup

if TYPE_CHECKING:
    from sevlaunch.owner.lock import Lock
    from sevlaunch.profile.model import Profile

# What reports show where a launch has no host data.
_NO_HOST_DATA = bytes(32)


def launches_of_setup(
    setup: Setup, profile: Profile | None, source: str, vcpus: Sequence[int] = ()
) -> tuple[AllowedLaunch, ...]:
    """A profile's launch, with each of ``vcpus``, or as many as it says.

    :param source: what the launches are said to come from.
    :raise UsageError: when it has no attestation report, or a file can't be read.
    """
    require_snp(setup.launch.guest_type)
    digests = Digests()
    found = []
    for count in vcpus or (setup.launch.vcpus,):
        digest = digests.of(replace(setup.launch, vcpus=count))
        shown = report_shows(profile, {"": digest}, setup.policy)
        host_data, key = shown.get("host_data"), shown.get("id_key_digest")
        found.append(
            AllowedLaunch(
                digest=digest,
                policy=setup.policy,
                vcpus=count,
                source=source,
                host_data=bytes.fromhex(host_data) if host_data else _NO_HOST_DATA,
                id_key_digest=bytes.fromhex(key) if key else None,
            )
        )
    return tuple(found)


def launches_of_lock(
    lock: Lock, source: str, vcpus: Sequence[int] = (), firmware: Path | None = None
) -> tuple[AllowedLaunch, ...]:
    """A lock's launch, with each of ``vcpus``, or as many as it says.

    :param firmware: another place of its firmware, which other numbers of vCPUs take.
    :raise UsageError: when it is of another type than SNP, or other numbers of vCPUs can't be computed.
    """
    shown = report_of_lock(lock)
    (digest,) = lock.expectation().digests.values()
    key = shown.id_key_digest if lock.id_block else None
    launch = AllowedLaunch(digest, lock.policy, lock.vcpus, source, shown.host_data, key)
    if not vcpus or tuple(vcpus) == (lock.vcpus,):
        return (launch,)
    if lock.id_block:
        raise UsageError(
            f"the lock {source} has an ID block, which lets its one digest run alone", hint="leave --vcpus out"
        )
    setup = setup_of_lock(lock, firmware, digest)
    if setup is None:
        raise UsageError(
            f"the digests of {source} with other vCPUs take its firmware, and {firmware or lock.firmware.path} is "
            "not there, or another by now",
            hint="give --firmware FILE",
        )
    digests = Digests()
    return tuple(replace(launch, digest=digests.of(replace(setup.launch, vcpus=count)), vcpus=count) for count in vcpus)
