"""What the firmware boots: a kernel that QEMU hands to it, or devices in their order."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, rule, verbatim
from sevlaunch.plan.part import Part
from sevlaunch.profile.model import Profile


class BootPlan(Part, frozen=True, kw_only=True):
    """``order``: devices by their names in the profile, such as disk0; empty: all, see :func:`boot_index`."""

    kernel: Choice[str] | None
    initrd: Choice[str] | None
    cmdline: Choice[str] | None
    order: Choice[tuple[str, ...]]
    remedy: str

    @property
    def needs(self) -> Needs:
        """Kernel and initrd are read."""
        files = (file.value for file in (self.kernel, self.initrd) if file)
        return Needs(files=tuple(NeededFile(file, "boot file", self.remedy) for file in files))

    def options(self) -> Iterator[Option]:
        """-kernel, -initrd, -append, and -boot strict=on."""
        for name, choice in (("-kernel", self.kernel), ("-initrd", self.initrd), ("-append", self.cmdline)):
            if choice is not None:
                yield verbatim(name, choice.value, choice.reason)
        if self.order.value:
            yield Option("-boot", (Choice(True, self.order.reason).parameter("strict"),))


def resolve_boot(context: Context) -> BootPlan:
    """What the profile boots."""
    boot = context.profile.boot
    return BootPlan(
        kernel=context.choice_or_none(boot.kernel, "boot", "kernel"),
        initrd=context.choice_or_none(boot.initrd, "boot", "initrd"),
        cmdline=context.choice_or_none(boot.cmdline, "boot", "cmdline"),
        order=context.choice(tuple(boot.order), "boot", "order"),
        remedy=context.correct("boot"),
    )


def boot_index(context: Context, device: str) -> Choice[int] | None:
    """The place of a device in the order of booting, from 1; None where it does not stand in boot.order.

    Without boot.order the firmware tries disks, then CD-ROMs, then networks, each in the profile's order. It passes
    over a disk on which nothing can be booted: a CD-ROM is booted as long as nothing is installed, and then no more.
    """
    order = context.profile.boot.order
    if not order:
        return Choice(_usual_order(context.profile).index(device) + 1, rule("disks, then CD-ROMs, then networks"))
    if device not in order:
        return None
    position = order.index(device)
    return context.choice(position + 1, "boot", "order", position)


def _usual_order(profile: Profile) -> list[str]:
    disks = [index for index, disk in enumerate(profile.disks) if not disk.cdrom]
    cdroms = [index for index, disk in enumerate(profile.disks) if disk.cdrom]
    return [f"disk{index}" for index in disks + cdroms] + [f"net{index}" for index in range(len(profile.networks))]
