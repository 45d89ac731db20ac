"""The launch that a report has to be of, from a profile's setup or a lock file; and why another digest is another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.change import Others
from sevlaunch.owner.explain import WITHOUT_CREDENTIALS, explain_digest
from sevlaunch.owner.identity import report_shows
from sevlaunch.owner.locked_report import report_of_lock
from sevlaunch.owner.report_wanted import WantedReport
from sevlaunch.owner.search import Findings
from sevlaunch.owner.setup import Options, Setup, resolve_setup

if TYPE_CHECKING:
    from sevlaunch.owner.lock import Lock
    from sevlaunch.profile.model import Profile


class Expected(Struct, frozen=True):
    """An SNP launch: digest, 48 bytes, and policy; where they are said, host data, 32 bytes, and digests of keys, 48.

    ``setup``: what the digest comes from, where that is known, and ``profile`` that one's; ``initrds``: others that are
    known with it, as in :class:`sevlaunch.owner.change.Others`.
    """

    digest: bytes
    policy: int
    host_data: bytes | None = None
    id_key_digest: bytes | None = None
    author_key_digest: bytes | None = None
    setup: Setup | None = None
    profile: Profile | None = None
    initrds: dict[str, bytes] = {}

    def completing(self, wanted: WantedReport) -> WantedReport:
        """``wanted`` with the rest of this launch, where it does not say or waive that itself."""
        if wanted.policy is None and "policy" not in wanted.waived:
            wanted = replace(wanted, policy=self.policy)
        missing = ("host_data", "id_key_digest", "author_key_digest")
        return replace(wanted, **{name: getattr(self, name) for name in missing if getattr(wanted, name) is None})

    def why_not(self, digest: bytes, others: Others, *, go_on: Callable[[], bool]) -> Findings | None:
        """What would have to be otherwise for the digest to be ``digest``; None: what goes into it is not known.

        :param others: what the launch may have had instead.
        :param go_on: asked now and then; False ends the search.
        """
        if self.setup is None:
            return None
        others = replace(others, initrds={**self.initrds, **others.initrds})
        return explain_digest(digest, self.setup, profile=self.profile, others=others, go_on=go_on)


def expected_of_setup(setup: Setup, profile: Profile | None) -> Expected:
    """The launch of a setup.

    :raise UsageError: when it is of another type than SNP.
    """
    require_snp(setup.launch.guest_type)
    (digest,) = setup.digests().values()
    shown = {
        name: bytes.fromhex(text)
        for name, text in report_shows(profile, setup.digests(), setup.policy).items()
        if text is not None
    }
    keys = (shown.get("id_key_digest"), shown.get("author_key_digest"))
    return Expected(digest, setup.policy, shown.get("host_data"), *keys, setup=setup, profile=profile)


def expected_of_lock(lock: Lock, firmware: Path | None = None) -> Expected:
    """The launch of a lock file.

    :param firmware: another place of its firmware, without which nothing can be searched for.
    :raise UsageError: when it is of another type than SNP.
    """
    shown = report_of_lock(lock)
    (digest,) = lock.expectation().digests.values()
    plain = lock.initrd.sha256 if lock.initrd and lock.initrd_with_credentials else None
    return Expected(
        digest,
        lock.policy,
        shown.host_data,
        shown.id_key_digest,
        shown.author_key_digest,
        setup=setup_of_lock(lock, firmware, digest),
        initrds={WITHOUT_CREDENTIALS: bytes.fromhex(plain)} if plain else {},
    )


def setup_of_lock(lock: Lock, firmware: Path | None, digest: bytes) -> Setup | None:
    """What the lock's digest comes from; None where the firmware is not at hand, or another by now."""
    initrd = lock.initrd_with_credentials or (lock.initrd.sha256 if lock.initrd else None)
    options = Options(
        guest_type=lock.type,
        firmware=firmware or Path(lock.firmware.path),
        kernel_hash=_hash(lock.kernel.sha256 if lock.kernel and lock.kernel_hashes else None),
        initrd_hash=_hash(initrd if lock.kernel_hashes else None),
        cmdline=lock.cmdline.text.encode() if lock.cmdline and lock.kernel_hashes else None,
        vcpus=lock.vcpus,
        cpu_signature=lock.cpu.signature,
        policy=f"{lock.policy:#x}",
    )
    with suppress(UsageError):
        setup = resolve_setup(None, options)
        if setup.digests()[""] == digest:
            return setup
    return None


def _hash(text: str | None) -> bytes | None:
    return bytes.fromhex(text) if text else None


def require_snp(guest_type: GuestType) -> None:
    """Make sure that guests of this type have attestation reports.

    :raise UsageError: when they have none.
    """
    if guest_type is not GuestType.SEV_SNP:
        raise UsageError(
            f"a {guest_type} guest has no attestation report", hint="its measurement: sevlaunch owner verify EVIDENCE"
        )
