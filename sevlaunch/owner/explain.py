"""From a verdict that says no to its explanation: what :mod:`sevlaunch.owner.search` needs, put together."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from sevlaunch.errors import UsageError
from sevlaunch.files import hash_file, read_bounded
from sevlaunch.image.initrd import joined_hash
from sevlaunch.owner.change import Known, LaunchChange, Others
from sevlaunch.owner.changes import launch_changes
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.digest import Launch
from sevlaunch.owner.message_changes import Message, message_changes
from sevlaunch.owner.profile_boot import boot_of_profile
from sevlaunch.owner.search import Findings, Target, search, search_digest
from sevlaunch.owner.setup import JOINED_INITRD, PROFILE, VMSA_NAMES, Setup
from sevlaunch.owner.verify import Expectation, LaunchVerdict, candidates
from sevlaunch.profile.model import Profile
from sevlaunch.qcow2 import MAX_FLASH_BYTES
from sevlaunch.sevapi.kernel_hashes import NO_INITRD, KernelHashes, cmdline_hash

# What an explanation calls the initrd of a launch that had no credentials behind it.
WITHOUT_CREDENTIALS = "without its credentials"


def explain(
    claims: HostClaims,
    expectation: Expectation,
    verdict: LaunchVerdict,
    tik: bytes,
    *,
    tek: bytes = b"",
    setup: Setup | None = None,
    profile: Profile | None = None,
    others: Others | None = None,
    go_on: Callable[[], bool],
) -> Findings:
    """What would have to be otherwise for the measurement to match; ``verdict`` says that it does not.

    :param setup: where the expectation comes from; None: from a lock file, whose digests are all that is known.
    :param profile: where there is one: what it names, but does not have measured, is tried, too.
    :param others: what the launch may have had instead.
    :param go_on: asked now and then; False ends the search.
    """
    message = Message(
        tik=tik,
        policy=expectation.policy,
        api_major=claims.sev.api_major or 0,
        api_minor=claims.sev.api_minor or 0,
        build_id=claims.sev.build_id or 0,
        digest=expectation.digests[verdict.vmsa],
    )
    changes_of_launch: list[LaunchChange] = []
    launches: list[Launch] = []
    other_digests: dict[str, bytes] = {}
    if setup is not None:
        names = candidates(claims, expectation)
        generations = [init2 for init2 in setup.generations if VMSA_NAMES[init2] in names] or [setup.launch.init2]
        launches = [replace(setup.launch, init2=init2) for init2 in generations]
        changes_of_launch = list(launch_changes(setup, generations, _known(setup, profile, others)))
    else:
        other_digests = {name: digest for name, digest in expectation.digests.items() if name != verdict.vmsa}
    return search(
        Target(claims.measure, claims.mnonce),
        launches,
        message,
        changes_of_launch,
        list(
            message_changes(
                message,
                claims.sev.policy,
                tek=tek,
                digests=other_digests,
                policy_source=setup.sources.get("policy", PROFILE) if setup else "lock",
            )
        ),
        go_on=go_on,
    )


def explain_digest(
    digest: bytes,
    setup: Setup,
    *,
    profile: Profile | None = None,
    others: Others | None = None,
    go_on: Callable[[], bool],
) -> Findings:
    """What would have to be otherwise in a launch for its digest to be ``digest``, of 32 bytes, for SNP 48.

    :param profile: where there is one: what it names, but does not have measured, is tried, too.
    :param others: what the launch may have had instead.
    :param go_on: asked now and then; False ends the search.
    """
    changes = list(launch_changes(setup, setup.generations, _known(setup, profile, others)))
    launches = [replace(setup.launch, init2=init2) for init2 in setup.generations]
    return search_digest(digest, launches, changes, go_on=go_on)


def _known(setup: Setup, profile: Profile | None, others: Others | None) -> Known:
    """What the profile names beside what is measured; files that are not there are left out."""
    others = others or Others()
    if profile is None:
        return Known(others=others)
    others = replace(others, initrds=_initrds(setup, profile, others))
    firmware = profile.firmware
    kernel: KernelHashes | None = None
    cmdline = b""
    variables: list[tuple[str, bytes]] = []
    with suppress(UsageError):
        if profile.boot.is_direct and setup.launch.kernel is None:
            boot = boot_of_profile(profile)
            cmdline = (boot.cmdline or "").encode()
            initrd = joined_hash(Path(boot.initrd), profile.boot.credentials) if boot.initrd else NO_INITRD
            kernel = KernelHashes(hash_file(Path(boot.kernel), "kernel"), initrd, cmdline_hash(cmdline))
    for name in (firmware.vars, firmware.nvram):
        with suppress(UsageError):
            if name:
                variables.append((name, read_bounded(Path(name), "variables", MAX_FLASH_BYTES)))
    return Known(kernel, cmdline if kernel else None, tuple(variables), others)


def _initrds(setup: Setup, profile: Profile, others: Others) -> dict[str, bytes]:
    """Other initrds: where credentials are measured, the profile's with fewer of them, and the others with them."""
    said = profile.boot.credentials
    joined = next((one for one in setup.inputs if one.name == JOINED_INITRD), None)
    if joined is None:
        return others.initrds
    file = Path(joined.value)
    found = {WITHOUT_CREDENTIALS: joined_hash(file, {})}
    for name in said if len(said) > 1 else ():
        rest = {other: content for other, content in said.items() if other != name}
        found[f"without its credential {name}"] = joined_hash(file, rest)
    for name, other_file in others.initrd_files.items():
        found[f"{name} with the credentials"] = joined_hash(other_file, said)
    return {**found, **others.initrds}
