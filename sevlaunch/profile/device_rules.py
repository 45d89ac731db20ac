"""Rules about the screen, its display, channels and shares."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.model import NoDisplay, Profile
from sevlaunch.profile.violation import Violation

# The guest's ends of these lead to programs of their own.
AGENT_CHANNEL, SPICE_CHANNEL = "org.qemu.guest_agent.0", "com.redhat.spice.0"
# hw/char/virtio-serial-bus.c: 31 ports, of which the first is for a console; one is the agent's.
_MOST_CHANNELS = 29


def check_devices(profile: Profile) -> Iterator[Violation]:
    """Every rule about these devices that ``profile`` breaks."""
    yield from _video(profile)
    yield from _display(profile)
    yield from _channels(profile)
    yield from _shares(profile)


def device_cautions(profile: Profile) -> Iterator[Violation]:
    """What others than the user can do to a guest through its devices."""
    if profile.tpm and profile.security.encrypted:
        yield Violation(
            ("tpm",),
            "the TPM is a program of the host, which can read and change what is in it: keep an encrypted guest's "
            "secrets elsewhere, such as in its launch secret",
        )
    display = profile.display
    if not isinstance(display, NoDisplay) and display.address is not None:
        yield Violation(
            ("display", "address"),
            f"whoever reaches {display.address} sees the guest's screen and types into it, without a password: without "
            "address it is a socket of the user's own",
        )


def _video(profile: Profile) -> Iterator[Violation]:
    video = profile.video
    for key in ("ram", "vram", "vgamem"):
        if getattr(video, key) is not None and video.type != "qxl" and (video.type, key) != ("std", "vram"):
            yield Violation(("video", key), f"{key} is for qxl video, found type {video.type}", (("video", "type"),))
    for key, unit, name in (("ram", 1 << 10, "KiB"), ("vram", 1 << 10, "KiB"), ("vgamem", 1 << 20, "MiB")):
        size = getattr(video, key)
        if size is not None and (size % unit or size < 1 << 20):
            yield Violation(
                ("video", key), f"wanted at least 1M in whole {name}, found {size} bytes; write 65536K for 65536 KiB"
            )
    if video.heads > 1 and video.type not in ("qxl", "virtio"):
        yield Violation(
            ("video", "heads"),
            f"several outputs are for qxl and virtio video, found type {video.type}",
            (("video", "type"),),
        )


def _display(profile: Profile) -> Iterator[Violation]:
    display = profile.display
    if isinstance(display, NoDisplay):
        return
    if profile.video.type == "none":
        yield Violation(
            ("display",),
            f"{display.type} shows what a graphics card draws, and the guest has none: set video, such as video: std",
            (("video",), ("video", "type")),
        )
    if display.port is not None and display.address is None:
        yield Violation(("display", "port"), "port is that of an address, and there is none", (("display", "address"),))


def _channels(profile: Profile) -> Iterator[Violation]:
    names = [channel.name for channel in profile.channels]
    for index, name in enumerate(names):
        path = ("channels", index, "name")
        if name in names[:index]:
            yield Violation(path, f"two channels have the name {name!r}", (("channels", names.index(name), "name"),))
        if name == AGENT_CHANNEL:
            yield Violation(path, "the QEMU guest agent has its channel by guest_agent: true")
        if name == SPICE_CHANNEL and profile.display.type != "spice":
            yield Violation(path, f"{name} leads to SPICE, and there is none: use display: spice", (("display",),))
        if index == _MOST_CHANNELS:
            yield Violation(("channels", index), f"there are ports for {_MOST_CHANNELS} channels, and this is one more")


def _shares(profile: Profile) -> Iterator[Violation]:
    tags = [share.tag for share in profile.shares]
    for index, tag in enumerate(tags):
        if tag in tags[:index]:
            first = tags.index(tag)
            yield Violation(("shares", index, "tag"), f"two shares have the tag {tag!r}", (("shares", first, "tag"),))
