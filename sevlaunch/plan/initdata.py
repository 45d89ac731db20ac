"""Init-data: the read-only disk by which the guest gets it; its digest is the launch's host_data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.plan.places import INITDATA
from sevlaunch.profile.model.initdata import InitData

NAME = "initdata"


class InitDataPlan(Part, frozen=True, kw_only=True):
    """The disk, which is made at the start.

    ``document``: what is on it; None: it is made once the files are read that it binds.
    """

    wanted: Reason
    said: InitData
    document: bytes | None
    path: Path
    address: Address
    dma_api: Choice[bool]
    remedy: str

    @property
    def needs(self) -> Needs:
        """The files that are bound."""
        files = self.said.files.values()
        return Needs(files=tuple(NeededFile(file, "file of initdata", self.remedy, by_launcher=True) for file in files))

    def options(self) -> Iterator[Option]:
        """A virtio disk, behind all others: the firmware boots nothing from it."""
        yield Option(
            "-blockdev",
            (
                Parameter("driver", "raw", rule("kata's layout: a head, and the packed document")),
                Parameter("node-name", NAME, rule("its block device")),
                Parameter("read-only", "on", rule("the guest only reads it")),
                Parameter("file.driver", "file", rule("a file")),
                Parameter("file.filename", str(self.path), rule("made at the start")),
            ),
        )
        yield Option(
            "-device",
            (
                Parameter("", "virtio-blk-pci", self.wanted),
                Parameter("id", f"{NAME}-device", rule("the disk of init-data")),
                Parameter("drive", NAME, rule("its block device")),
                Parameter("serial", NAME, rule("by which the guest may find it: virtio-initdata")),
                *self.address.parameters(),
                *virtio_parameters(self.dma_api),
            ),
        )


def resolve_initdata(context: Context, said: InitData) -> InitDataPlan:
    """The disk for the profile."""
    return InitDataPlan(
        wanted=context.why("initdata"),
        said=said,
        document=None,
        path=context.folder / INITDATA,
        address=context.address("seed", 1),
        dma_api=context.dma_api(),
        remedy=context.correct("initdata"),
    )
