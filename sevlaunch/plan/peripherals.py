"""Everything else that hangs on the machine: console, rng, balloon, video, vsock, shared folders."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.companion import Companion
from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Option, Parameter, rule
from sevlaunch.plan.virtio import virtio_parameters
from sevlaunch.profile.model import Video

# The PCI device that carries a type of video.
VIDEO_DEVICES = {"std": "VGA", "qxl": "qxl-vga", "virtio": "virtio-vga"}

# Debian 12's qemu-system-common, and the Rust virtiofsd of others: outside PATH.
_VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")


class PeripheralsPlan(Struct, frozen=True):
    """The options, the companions, and whether there is a console."""

    options: tuple[Option, ...]
    companions: tuple[Companion, ...]
    console: bool


def resolve_peripherals(context: Context) -> PeripheralsPlan:
    """The remaining devices for the profile."""
    companions: list[Companion] = []
    options = [
        *_console(context),
        *_rng(context),
        *_balloon(context),
        *_video(context),
        *_vsock(context),
        *_agent(context),
        *_shares(context, companions),
    ]
    return PeripheralsPlan(tuple(options), tuple(companions), context.profile.console != "none")


def derived_cid(name: str) -> int:
    """A vsock context ID that is always the same for a guest's name, away from the small ones people choose."""
    return 0x10000 | int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") & 0x7FFFFFFF


def _device(context: Context, driver: str, needed_by: str) -> None:
    if driver not in context.qemu.devices:
        context.lack(
            f"QEMU {context.qemu.version} has no device {driver}, which {needed_by} needs",
            hint="install this QEMU's modules (Debian: qemu-system-modules-spice for qxl), or leave it out",
        )


def _console(context: Context) -> Iterator[Option]:
    kind = context.profile.console
    if kind == "none":
        return
    why = rule("`sevlaunch console` and `logs`")
    yield Option(
        "-chardev",
        (
            Parameter("", "socket", why),
            Parameter("id", "console", why),
            Parameter("path", str(context.folder / "console.sock"), why),
            Parameter("server", "on", why),
            Parameter("wait", "off", why),
            Parameter("logfile", str(context.folder / "console.log"), why),
        ),
    )
    if kind == "serial":
        yield Option("-serial", (context.from_profile("", "chardev:console", "console"),), verbatim=True)
        return
    yield Option(
        "-device",
        (
            context.from_profile("", "virtio-serial-pci", "console"),
            Parameter("id", "console-bus", why),
            *virtio_parameters(rule("every virtio device")),
        ),
    )
    yield Option(
        "-device",
        (context.from_profile("", "virtconsole", "console"), Parameter("chardev", "console", why)),
    )


def _rng(context: Context) -> Iterator[Option]:
    rng = context.profile.rng
    if rng is None:
        return
    yield Option(
        "-object",
        (
            Parameter("", "rng-random", context.why("rng")),
            Parameter("id", "rng0", rule("name of the source")),
            context.from_profile("filename", rng.source, "rng", "source"),
        ),
    )
    reason = context.why("rng", "iommu_platform", default="every virtio device")
    yield Option(
        "-device",
        (
            Parameter("", "virtio-rng-pci", context.why("rng")),
            Parameter("rng", "rng0", rule("its source")),
            *virtio_parameters(reason, dma_api=rng.iommu_platform),
        ),
    )


def _balloon(context: Context) -> Iterator[Option]:
    balloon = context.profile.balloon
    if balloon is None:
        return
    if balloon.iommu_platform:
        # Linux' drivers/virtio/virtio_balloon.c clears VIRTIO_F_ACCESS_PLATFORM, and QEMU then refuses the features.
        context.warn("Linux guests don't use a balloon behind the DMA API: it is there, and does nothing")
    reason = context.why("balloon", "iommu_platform", default="every virtio device")
    yield Option(
        "-device",
        (
            Parameter("", "virtio-balloon-pci", context.why("balloon")),
            *virtio_parameters(reason, dma_api=balloon.iommu_platform),
        ),
    )


def _video(context: Context) -> Iterator[Option]:
    video = context.profile.video
    if video.type == "none":
        return
    driver = VIDEO_DEVICES[video.type]
    _device(context, driver, f"video: {video.type}")
    yield Option(
        "-device",
        (
            context.from_profile("", driver, "video", "type"),
            Parameter("id", "video0", rule("name of the device")),
            *_video_sizes(context, video),
        ),
    )


def _video_sizes(context: Context, video: Video) -> Iterator[Parameter]:
    if video.type == "qxl":
        if video.ram:
            yield context.from_profile("ram_size", video.ram, "video", "ram")
        if video.vram:
            yield context.from_profile("vram_size", video.vram, "video", "vram")
        if video.vgamem:
            yield context.from_profile("vgamem_mb", video.vgamem >> 20, "video", "vgamem")
    elif video.type == "std" and video.vram:
        yield context.from_profile("vgamem_mb", video.vram >> 20, "video", "vram")
    if video.type in ("qxl", "virtio"):
        yield context.from_profile("max_outputs", video.heads, "video", "heads")
    if video.type == "virtio":
        yield from virtio_parameters(rule("every virtio device"))


def _vsock(context: Context) -> Iterator[Option]:
    wanted = context.profile.vsock
    if wanted is None:
        return
    cid = derived_cid(context.profile.name) if wanted == "auto" else wanted
    _device(context, "vhost-vsock-pci", "vsock")
    reason = context.why("vsock")
    yield Option(
        "-device",
        (
            Parameter("", "vhost-vsock-pci", reason),
            Parameter("guest-cid", str(cid), rule("derived from the guest's name") if wanted == "auto" else reason),
            *virtio_parameters(rule("every virtio device")),
        ),
    )


def _agent(context: Context) -> Iterator[Option]:
    if not context.profile.guest_agent:
        return
    reason = context.why("guest_agent")
    yield Option(
        "-chardev",
        (
            Parameter("", "socket", reason),
            Parameter("id", "agent", reason),
            Parameter("path", str(context.folder / "agent.sock"), reason),
            Parameter("server", "on", reason),
            Parameter("wait", "off", reason),
        ),
    )
    yield Option(
        "-device",
        (
            Parameter("", "virtio-serial-pci", reason),
            Parameter("id", "agent-bus", reason),
            *virtio_parameters(rule("every virtio device")),
        ),
    )
    yield Option(
        "-device",
        (
            Parameter("", "virtserialport", reason),
            Parameter("bus", "agent-bus.0", reason),
            Parameter("chardev", "agent", reason),
            Parameter("name", "org.qemu.guest_agent.0", rule("the name that the agent looks for")),
        ),
    )


def _shares(context: Context, companions: list[Companion]) -> Iterator[Option]:
    for index, share in enumerate(context.profile.shares):
        _device(context, "vhost-user-fs-pci", f"shares.{index}")
        socket = str(context.folder / f"share{index}.sock")
        companions.append(
            Companion(
                f"share{index}",
                ("virtiofsd", f"--socket-path={socket}", "-o", f"source={share.path}"),
                socket,
                "Debian 12: qemu-system-common; newer Debian, Ubuntu, Fedora, openSUSE: the package virtiofsd",
                _VIRTIOFSD,
            )
        )
        reason = context.why("shares", index, "path")
        chardev = f"share{index}"
        yield Option(
            "-chardev",
            (Parameter("", "socket", reason), Parameter("id", chardev, reason), Parameter("path", socket, reason)),
        )
        yield Option(
            "-device",
            (
                Parameter("", "vhost-user-fs-pci", reason),
                Parameter("chardev", chardev, reason),
                context.from_profile("tag", share.tag, "shares", index, "tag"),
            ),
        )
