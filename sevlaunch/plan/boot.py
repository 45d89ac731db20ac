"""What the firmware boots: a kernel that QEMU hands to it, or devices in their order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Reason, rule, verbatim
from sevlaunch.plan.part import Part, PrivateFile
from sevlaunch.plan.places import INITRD, KERNEL
from sevlaunch.profile.model import Profile

if TYPE_CHECKING:
    from sevlaunch.plan.verity import VerityPlan


class CredentialsPlan(Struct, frozen=True):
    """Credentials for systemd, by their names, that are put behind the initrd at the start; ``path``: both together."""

    contents: Choice[dict[str, bytes]]
    path: Path


class BootPlan(Part, frozen=True, kw_only=True):
    """``order``: devices by their names in the profile, such as disk0; empty: all, see :func:`boot_index`.

    ``cmdline``: with the words for ``verity``, the root's hash tree.
    ``says``: what a unified kernel image says of itself, or empty.
    ``copied_to``: the guest's folder, where QEMU's account can't read what was taken from an image, and gets a copy.
    """

    kernel: Choice[str] | None
    initrd: Choice[str] | None
    cmdline: Choice[str] | None
    order: Choice[tuple[str, ...]]
    remedy: str
    says: str = ""
    copied_to: Path | None = None
    credentials: CredentialsPlan | None = None
    verity: VerityPlan | None = None

    @property
    def needs(self) -> Needs:
        """Kernel and initrd are read; what QEMU gets a copy of, by the launcher."""
        copied = self.copied_to is not None
        files = ((self.kernel, copied), (self.initrd, copied or self.credentials is not None))
        return Needs(
            files=tuple(
                NeededFile(file.value, "boot file", self.remedy, by_launcher=by_launcher)
                for file, by_launcher in files
                if file
            )
        )

    @property
    def files(self) -> tuple[PrivateFile, ...]:
        """The copies that QEMU's account gets."""
        return tuple(PrivateFile(copy, "", source=source) for source, copy in self._copies.items())

    @property
    def _copies(self) -> dict[str, str]:
        if self.copied_to is None:
            return {}
        named = ((self.kernel, KERNEL), (None if self.credentials else self.initrd, INITRD))
        return {file.value: str(self.copied_to / name) for file, name in named if file}

    def options(self) -> Iterator[Option]:
        """-kernel, -initrd, -append, and -boot strict=on."""
        for name, choice in (("-kernel", self.kernel), ("-initrd", self._given), ("-append", self.cmdline)):
            if choice is not None:
                yield verbatim(name, self._copies.get(choice.value, choice.value), choice.reason)
        if self.order.value:
            yield Option("-boot", (Choice(True, self.order.reason).parameter("strict"),))

    @property
    def _given(self) -> Choice[str] | None:
        """The initrd that QEMU is given."""
        if self.credentials is None or self.initrd is None:
            return self.initrd
        return Choice(str(self.credentials.path), self.credentials.contents.reason)


def resolve_boot(context: Context) -> BootPlan:
    """What the profile boots."""
    boot = context.profile.boot
    order = context.choice(tuple(boot.order), "boot", "order")
    if boot.is_direct:
        return _resolve_direct(context, order)
    return BootPlan(kernel=None, initrd=None, cmdline=None, order=order, remedy="")


def _resolve_direct(context: Context, order: Choice[tuple[str, ...]]) -> BootPlan:
    # Most guests boot from their disks.
    from sevlaunch.plan.direct_boot import cautions, direct_boot, refusal

    profile, facts = context.profile, context.host.boot
    boot = profile.boot
    if found := refusal(profile, facts):
        key, message, hint = found
        context.refuse(message, "boot", key, hint=hint)
        return BootPlan(kernel=None, initrd=None, cmdline=None, order=order, remedy="")
    verity = _verity(context)
    for caution in cautions(profile, facts):
        context.warn(caution)
    direct = direct_boot(boot, facts, verity.words if verity else ())

    def taken(what: str, value: str | None, key: str) -> Choice[str] | None:
        if value is None:
            return None
        if getattr(boot, key) is not None or facts is None or not boot.from_:
            reason = context.why("boot", key)
        else:
            reason = Reason("host", f"{facts.places.get(what, 'the kernel itself')} of {boot.from_}")
        if what == "kernel" and direct.says:
            reason = Reason(reason.kind, f"{reason.text}; {direct.says}")
        return Choice(value, reason)

    key = "cmdline" if boot.cmdline is not None or boot.cmdline_extra is None else "cmdline_extra"
    return BootPlan(
        kernel=taken("kernel", direct.kernel, "kernel"),
        initrd=taken("initrd", direct.initrd, "initrd"),
        cmdline=_with_verity(context, verity, taken("cmdline", direct.cmdline, key)),
        order=order,
        remedy=context.correct("boot"),
        says=direct.says,
        # The cache is this user's alone.
        copied_to=context.folder if boot.from_ and context.other_user else None,
        credentials=_credentials(context),
        verity=verity,
    )


def _verity(context: Context) -> VerityPlan | None:
    if context.profile.boot.verity is None:
        return None
    # Few guests have such a root.
    from sevlaunch.plan.verity import resolve_verity

    return resolve_verity(context)


def _with_verity(context: Context, verity: VerityPlan | None, cmdline: Choice[str] | None) -> Choice[str] | None:
    """The command line, with the reason for what is said last."""
    if verity is None or cmdline is None:
        return cmdline
    return Choice(cmdline.value, context.why("boot", "verity"))


def _credentials(context: Context) -> CredentialsPlan | None:
    said = context.profile.boot.credentials
    if not said:
        return None
    return CredentialsPlan(context.choice(said, "boot", "credentials"), context.folder / INITRD)


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
