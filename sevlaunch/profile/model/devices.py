"""The small devices, and shared folders."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.profile.fields import AbsolutePath, Size, matching
from sevlaunch.profile.model.base import Model

_TAG_NAME = "1 to 36 letters, digits, dots, dashes and underscores"


class Rng(Model, frozen=True, kw_only=True):
    """virtio-rng."""

    source: Annotated[AbsolutePath, Meta(description="host device that the random numbers come from")] = "/dev/urandom"
    iommu_platform: Annotated[bool | None, Meta(description="DMA API; default: that of the guest")] = None


class Balloon(Model, frozen=True, kw_only=True):
    """virtio-balloon."""

    iommu_platform: Annotated[bool | None, Meta(description="DMA API; default: that of the guest")] = None


class Video(Model, frozen=True, kw_only=True):
    """A graphics card."""

    type: Literal["none", "std", "qxl", "virtio"] = "none"
    ram: Annotated[Size | None, Meta(description="qxl: size of the primary bar")] = None
    vram: Annotated[Size | None, Meta(description="qxl: size of the secondary bar; std: video memory")] = None
    vgamem: Annotated[Size | None, Meta(description="qxl: size of the framebuffer")] = None
    heads: Annotated[int, Meta(ge=1, le=16, description="qxl and virtio: number of outputs")] = 1


class Tpm(Model, frozen=True, kw_only=True):
    """A TPM 2.0, emulated by swtpm."""

    model: Annotated[Literal["tis", "crb"], Meta(description="the interface that the guest sees")] = "tis"


class Channel(Model, frozen=True, kw_only=True):
    """A virtio-serial port. com.redhat.spice.0 leads to SPICE, any other to a socket in the guest's folder."""

    name: Annotated[
        str,
        matching(
            r"[A-Za-z0-9._-]{1,128}",
            "the guest finds the port as /dev/virtio-ports/NAME",
            wanted="1 to 128 letters, digits, dots, dashes and underscores",
        ),
    ]


class Share(Model, frozen=True, kw_only=True):
    """A folder of the host, shared through virtiofs."""

    path: AbsolutePath
    tag: Annotated[str, matching(r"[A-Za-z0-9._-]{1,36}", "name to mount it by in the guest", wanted=_TAG_NAME)]
