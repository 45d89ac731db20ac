"""What the firmware boots."""

# No postponed annotations: profile.validation looks at them, and to evaluate them takes longer than all else there.
from typing import Annotated

from msgspec import Meta

from sevlaunch.profile.fields import AbsolutePath, Placeholder, matching
from sevlaunch.profile.model.base import Model


class Boot(Model, frozen=True, kw_only=True):
    """What the firmware boots."""

    kernel: Annotated[AbsolutePath | None, Meta(description="Linux kernel for a direct boot")] = None
    initrd: AbsolutePath | None = None
    cmdline: Annotated[str | None, Meta(description="kernel command line")] = None
    order: Annotated[
        list[
            Annotated[
                str, matching(r"(disk|net)[0-9]+", wanted="a device such as disk0 or net0"), Placeholder("disk999")
            ]
        ],
        Meta(description="devices to boot from, such as disk0, net0; default: disks, then CD-ROMs, then networks"),
    ] = []
