"""What the firmware boots."""

# No postponed annotations: profile.validation looks at them, and to evaluate them takes longer than all else there.
from typing import Annotated

from msgspec import Meta, field

from sevlaunch.profile.fields import AbsolutePath, Placeholder, matching
from sevlaunch.profile.model.base import Model


class Boot(Model, frozen=True, kw_only=True):
    """What the firmware boots."""

    @property
    def is_direct(self) -> bool:
        """Whether QEMU hands the kernel over."""
        return bool(self.kernel or self.from_)

    @property
    def from_index(self) -> int | None:
        """The position in disks of the one that all is taken from."""
        return int(self.from_.removeprefix("disk")) if self.from_ else None

    kernel: Annotated[AbsolutePath | None, Meta(description="Linux kernel for a direct boot")] = None
    initrd: AbsolutePath | None = None
    from_: Annotated[
        Annotated[str, matching(r"disk[0-9]+", wanted="a disk such as disk0"), Placeholder("disk999")] | None,
        Meta(description="disk whose image kernel, initrd and command line are taken from, such as disk0"),
    ] = field(name="from", default=None)
    cmdline: Annotated[
        str | None, Meta(description="kernel command line; in place of the one in the image, or in the kernel")
    ] = None
    cmdline_extra: Annotated[
        str | None, Meta(description="what is added to the command line, or to the one in the image, or in the kernel")
    ] = None
    order: Annotated[
        list[
            Annotated[
                str, matching(r"(disk|net)[0-9]+", wanted="a device such as disk0 or net0"), Placeholder("disk999")
            ]
        ],
        Meta(description="devices to boot from, such as disk0, net0; default: disks, then CD-ROMs, then networks"),
    ] = []
