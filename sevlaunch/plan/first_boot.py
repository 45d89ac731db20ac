"""The seed of a first boot: what is in it, and the read-only disk by which the guest gets it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.plan.places import SEED, SSH_KEY
from sevlaunch.profile.model import Profile
from sevlaunch.profile.model.first_boot import FirstBoot
from sevlaunch.profile.seed_values import as_hostname

NAME = "first-boot"


class FirstBootPlan(Part, frozen=True, kw_only=True):
    """A seed for cloud-init, which is made at the start.

    ``said``: what the profile says, of which nothing but the host's and the user's name is to be seen by others.
    ``guest``: which guest it is, among all. ``keys``: auto, own, or how many are named. ``path``: the seed.
    ``own_key``: the private key of the guest's own pair, if it has one. ``entry``: the cache's of the first disk's
    image, if that is fetched: what is known of it there says whom cloud-init makes by itself.
    """

    wanted: Reason
    said: FirstBoot
    guest: str
    hostname: Choice[str]
    user: Choice[str] | None
    keys: Choice[str]
    path: Path
    own_key: Path
    entry: str | None
    address: Address
    dma_api: Choice[bool]
    remedy: str

    @property
    def needs(self) -> Needs:
        """The files that are copied into the seed."""
        sources = (file.source for file in self.said.files if file.source)
        return Needs(
            files=tuple(NeededFile(file, "file of first_boot", self.remedy, by_launcher=True) for file in sources)
        )

    def options(self) -> Iterator[Option]:
        """A virtio disk, which encrypted guests have, too. The firmware boots nothing from it."""
        yield Option(
            "-blockdev",
            (
                Parameter("driver", "raw", rule("a CD-ROM image")),
                Parameter("node-name", NAME, rule("its block device")),
                Parameter("read-only", "on", rule("the guest only reads it")),
                Parameter("file.driver", "file", rule("a file")),
                Parameter(
                    "file.filename", str(self.path), rule("made at the start, with the keys that are there then")
                ),
            ),
        )
        yield Option(
            "-device",
            (
                Parameter("", "virtio-blk-pci", self.wanted),
                Parameter("id", f"{NAME}-device", rule("the seed's disk")),
                Parameter("drive", NAME, rule("its block device")),
                *self.address.parameters(),
                *virtio_parameters(self.dma_api),
            ),
        )

    def explained(self) -> Iterator[str]:
        """What is in the seed, and why, as far as others may know."""
        for what, choice in (("host name", self.hostname), ("user", self.user), ("SSH keys", self.keys)):
            if choice:
                yield f"first boot: {what} {choice.value} ({choice.reason})"


def resolve_first_boot(context: Context, said: FirstBoot) -> FirstBootPlan:
    """The seed for the profile."""
    profile = context.profile
    state = context.state_folder
    # What is bound has to be the same wherever the profile lies: its owner makes the same seed.
    bound = profile.initdata is not None and profile.initdata.binds_seed
    return FirstBootPlan(
        wanted=context.why("first_boot"),
        said=said,
        guest=profile.name if bound else f"{profile.name}/{state.name}",
        hostname=context.choice(said.hostname or as_hostname(profile.name), "first_boot", "hostname"),
        user=context.choice_or_none(said.user, "first_boot", "user"),
        keys=_keys(context, said),
        path=context.folder / SEED,
        own_key=state / SSH_KEY,
        entry=_entry(profile),
        address=context.address("seed"),
        dma_api=context.dma_api(),
        remedy=context.correct("first_boot"),
    )


def _entry(profile: Profile) -> str | None:
    first = profile.disks[0] if profile.disks else None
    return first.source if first and first.image and first.is_fetched else None


def _keys(context: Context, said: FirstBoot) -> Choice[str]:
    keys = said.ssh_keys
    if isinstance(keys, str):
        return context.choice(keys, "first_boot", "ssh_keys")
    return context.choice(str(sum(lines.count("\n") + 1 for lines in keys)), "first_boot", "ssh_keys")
