"""What is behind a disk: the image, how the host reads and writes it, and the key that opens it."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.folder_disk import FolderDiskPlan
from sevlaunch.plan.handed import handed_name, handing
from sevlaunch.plan.needs import NeededDevice, NeededFile, Needs, merged
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.overlay import OverlayPlan
from sevlaunch.profile.model import Cache


class CacheMode(Struct, frozen=True):
    """What a cache mode means for the host's cache, for flushes, and for the cache that the guest sees."""

    direct: str
    no_flush: str
    write_cache: str


# As QEMU's -drive documents it in qemu-options.hx.
CACHE: dict[Cache, CacheMode] = {
    "writeback": CacheMode("off", "off", "on"),
    "none": CacheMode("on", "off", "on"),
    "writethrough": CacheMode("off", "off", "off"),
    "directsync": CacheMode("on", "off", "off"),
    "unsafe": CacheMode("off", "on", "on"),
}
# Keys of throttle in a profile, and what -object throttle-group calls them.
LIMITS = {
    "iops": "x-iops-total",
    "iops_read": "x-iops-read",
    "iops_write": "x-iops-write",
    "bytes": "x-bps-total",
    "bytes_read": "x-bps-read",
    "bytes_write": "x-bps-write",
}


class ImagePlan(Struct, frozen=True, kw_only=True):
    """The image of the disk ``name``. ``remedy``: what to do where it, or its key, is missing.

    ``detect_zeroes``: QEMU's word. ``limits``: keys of throttle, and what they are a second. ``stands_alone``: the
    image is never written, and opens no other file; ``overlay``: what takes the writes to it. ``folder``: what the disk
    is made of, if it is no image of somebody's.
    """

    name: str
    path: Choice[str]
    format: Choice[str]
    block_device: Choice[bool]
    read_only: Choice[bool]
    discard: Choice[bool]
    cache: Choice[Cache]
    aio: Choice[str]
    detect_zeroes: Choice[str]
    luks_key: Choice[str] | None
    limits: tuple[tuple[str, Choice[int]], ...]
    remedy: str
    overlay: OverlayPlan | None = None
    folder: FolderDiskPlan | None = None
    stands_alone: bool = False

    @property
    def node(self) -> str:
        """What the guest's disk is put on: the image, or what limits it."""
        return f"{self.name}-throttled" if self.limits else self.name

    @property
    def needs(self) -> Needs:
        """The image, what takes the writes to it, and its key."""
        key = (NeededFile(self.luks_key.value, "LUKS key", self.remedy),) if self.luks_key else ()
        if self.folder:
            return self.folder.needs
        return merged((self._image(), self.overlay.needs if self.overlay else Needs(), Needs(files=key)))

    def _image(self) -> Needs:
        path, write = self.path.value, not (self.read_only.value or self.overlay)
        if self.block_device.value:
            why = f"It is the guest's {self.name}."
            return Needs(devices=(NeededDevice(path, why, self.remedy, write=write, what="disk"),))
        # Without its LUKS header an image is a raw one.
        content = "raw" if self.format.value == "luks" else self.format.value
        instead = "set read_only: true"
        return Needs(files=(NeededFile(path, "disk", self.remedy, write=write, instead=instead, image_format=content),))

    def options(self) -> Iterator[Option]:
        """The key, the limits, the block device, and what limits it."""
        if self.luks_key:
            yield Option(
                "-object",
                (
                    Parameter("", "secret", self.luks_key.reason),
                    Parameter("id", self._secret, rule("the key of the image, which is in no command line")),
                    self.luks_key.parameter("file"),
                    Parameter("format", "raw", rule("the file has the passphrase, and nothing else")),
                ),
            )
        if self.overlay:
            yield from self.overlay.handing()
        if self.folder:
            yield handing(self.folder.descriptor, self.folder.source.reason)
        yield self._block_device()
        if self.limits:
            group, why = f"{self.name}-limits", rule("what the disk may do in a second")
            limits = (limit.parameter(LIMITS[key]) for key, limit in self.limits)
            yield Option("-object", (Parameter("", "throttle-group", why), Parameter("id", group, why), *limits))
            yield Option(
                "-blockdev",
                (
                    Parameter("driver", "throttle", why),
                    Parameter("node-name", self.node, why),
                    Parameter("throttle-group", group, why),
                    Parameter("file", self.name, why),
                    self.read_only.parameter("read-only"),
                    self._discard,
                ),
            )

    @property
    def _secret(self) -> str:
        return f"{self.name}-key"

    @property
    def _discard(self) -> Parameter:
        return Parameter("discard", "unmap" if self.discard.value else "ignore", self.discard.reason)

    def _block_device(self) -> Option:
        cache = CACHE[self.cache.value]
        zeroes = (self.detect_zeroes.parameter("detect-zeroes"),) if self.detect_zeroes.value != "off" else ()
        top = rule("QEMU's format for what lies on top of an image") if self.overlay else self.format.reason
        return Option(
            "-blockdev",
            (
                Parameter("driver", "qcow2" if self.overlay else self.format.value, top),
                Parameter("node-name", self.name, rule("position in disks")),
                self.read_only.parameter("read-only"),
                self._discard,
                *zeroes,
                Parameter("cache.direct", cache.direct, self.cache.reason),
                Parameter("cache.no-flush", cache.no_flush, self.cache.reason),
                *self._key(),
                *(self._on_top(self.overlay) if self.overlay else self._content("")),
            ),
        )

    def _on_top(self, overlay: OverlayPlan) -> Iterator[Parameter]:
        """The file of the overlay, and the image below it: no header is asked for either."""
        yield Parameter("file.driver", "file", overlay.kept.reason)
        yield from self._aio("")
        yield overlay.filename()
        yield self.format.parameter("backing.driver")
        yield Parameter("backing.node-name", f"{self.name}-image", rule("position in disks"))
        yield Parameter("backing.read-only", "on", rule("the image is never written"))
        yield from self._content("backing.")

    def _content(self, below: str) -> Iterator[Parameter]:
        """The file or block device that the image is, ``below`` which key of the option."""
        driver = "host_device" if self.block_device.value else "file"
        yield Parameter(f"{below}file.driver", driver, self.block_device.reason)
        yield from self._aio(below)
        if self.folder:
            made = rule(f"made of {self.folder.source.value}, labelled {self.folder.label.value}, at the start")
            yield Parameter(f"{below}file.filename", handed_name(self.folder.descriptor), made)
            return
        yield self.path.parameter(f"{below}file.filename")
        if self.stands_alone and self.format.value == "qcow2":
            # The driver would open what the image's header names; this is what it sees where it names nothing.
            alone = rule("the image stands alone, whatever its header says")
            yield Parameter(f"{below}backing.driver", "null-co", alone)
            yield Parameter(f"{below}backing.read-zeroes", "on", alone)

    def _aio(self, below: str) -> Iterator[Parameter]:
        if self.aio.value != "threads":
            yield self.aio.parameter(f"{below}file.aio")

    def _key(self) -> Iterator[Parameter]:
        if self.luks_key is None:
            return
        if self.format.value == "luks":
            yield Parameter("key-secret", self._secret, self.luks_key.reason)
        else:
            yield Parameter("encrypt.format", "luks", self.luks_key.reason)
            yield Parameter("encrypt.key-secret", self._secret, self.luks_key.reason)
