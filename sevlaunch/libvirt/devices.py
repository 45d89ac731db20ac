"""Devices that a profile has one of, or none: rng, balloon, video, console, vsock; and shares."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.virtio import import_dma_api, note_modern

# libvirt's model of a video card -> the profile's, where it is one of QEMU's that sevlaunch has.
_VIDEO = {"qxl": "qxl", "vga": "std", "virtio": "virtio", "none": "none"}
# Sizes in KiB of the model of a qxl card, and of a VGA card.
_SIZES = {"qxl": ("ram", "vram", "vgamem"), "std": ("vram",)}
_VIRTIO = ("virtio", "virtio-non-transitional")
# COM2 to COM4.
_FURTHER_PORTS = 3


def import_devices(conversion: Conversion) -> None:
    """The remaining devices that have a key in the profile."""
    outcomes = conversion.outcomes
    _rng(conversion, list(conversion.devices.all("rng")))
    _balloon(conversion, conversion.devices.child("memballoon"))
    _video(conversion, list(conversion.devices.all("video")))
    _consoles(conversion)
    _vsock(conversion, conversion.devices.child("vsock"))
    for filesystem in conversion.devices.all("filesystem"):
        _share(conversion, filesystem)
    for controller in conversion.devices.all("controller"):
        if controller.child("driver").get("iommu"):
            import_dma_api(conversion, controller, None)
            outcomes.drop(controller, "sevlaunch makes the controllers that the devices need")
    for hostdev in conversion.devices.all("hostdev"):
        if conversion.encrypted:
            outcomes.refuse(hostdev, "sevlaunch can't assign host devices to an encrypted guest yet")


def _rng(conversion: Conversion, rngs: list[Element]) -> None:
    outcomes = conversion.outcomes
    if not rngs:
        outcomes.carry(("rng",), False, Part(conversion.devices or conversion.domain), reason="the domain has none")
        return
    for further in rngs[1:]:
        outcomes.unsupported(further, "one random number generator is all that a guest needs")
    rng = rngs[0]
    backend = rng.child("backend")
    outcomes.carry(("rng",), True, rng.part("model") or Part(rng))
    note_modern(conversion, rng, rng.get("model"))
    if backend.get("model") == "random":
        outcomes.same(backend.part("model"), "see rng.source")
        if backend.text:
            outcomes.carry(("rng", "source"), backend.text, backend)
    elif backend.get("model") == "builtin":
        outcomes.correct(("rng", "source"), "/dev/urandom", backend.part("model"), "QEMU reads it as its builtin does")
    else:
        outcomes.unsupported(backend, "random numbers come from a device of the host: /dev/urandom")
    import_dma_api(conversion, rng, ("rng",))


def _balloon(conversion: Conversion, balloon: Element) -> None:
    outcomes = conversion.outcomes
    model = balloon.part("model")
    if balloon.get("model") in _VIRTIO:
        outcomes.carry(("balloon",), True, model)
        note_modern(conversion, balloon, balloon.get("model"))
        import_dma_api(conversion, balloon, ("balloon",))
    elif balloon.get("model") == "none":
        outcomes.carry(("balloon",), False, model)
    elif balloon:
        outcomes.correct(("balloon",), True, model or Part(balloon), "the balloon is a modern virtio device")
        import_dma_api(conversion, balloon, ("balloon",))
    elif not conversion.encrypted:
        about = Part(conversion.devices or conversion.domain)
        outcomes.carry(
            ("balloon", "iommu_platform"), False, about, reason="libvirt's default: a balloon unless it says none"
        )


def _video(conversion: Conversion, videos: list[Element]) -> None:
    outcomes = conversion.outcomes
    primary = next((video for video in videos if video.child("model").get("primary") == "yes"), None)
    chosen = primary or (videos[0] if videos else None)
    for video in videos:
        model = video.child("model")
        if video is not chosen:
            outcomes.unsupported(video, "one graphics card")
            continue
        kind = _VIDEO.get(model.get("type") or "")
        if kind is None:
            reason = f"no {model.get('type') or 'default'} card: a VGA card, which every system can drive"
            outcomes.correct(("video", "type"), "std", model.part("type") or Part(video), reason)
            for name in _SIZES["qxl"]:
                outcomes.drop(model.part(name), "of another card")
        else:
            outcomes.carry(("video", "type"), kind, model.part("type"))
        outcomes.same(model.part("primary"), "the only one")
        for name in _SIZES.get(kind or "", ()):
            size = number(model.get(name))
            if size:
                outcomes.carry(("video", name), f"{size}K", model.part(name))
        heads = number(model.get("heads"))
        if kind in ("qxl", "virtio") and heads is not None:
            outcomes.carry(("video", "heads"), heads, model.part("heads"))
        elif heads is not None:
            outcomes.same(model.part("heads"), "such a card has one, whatever it says")
        if kind == "virtio":
            outcomes.drop(model.part("vram"), "a virtio card has none")
            import_dma_api(conversion, video, None)


def _consoles(conversion: Conversion) -> None:
    """The guest's console: the first serial port, or else a virtio console."""
    outcomes = conversion.outcomes
    serials = list(conversion.devices.all("serial"))
    virtio: list[Element] = []
    for console in conversion.devices.all("console"):
        kind = console.child("target").get("type") or "serial"
        if kind == "virtio":
            virtio.append(console)
        elif kind == "serial" and serials:
            outcomes.drop(console, "libvirt's second view of the serial port")
        elif kind == "serial":
            serials.append(console)
    chosen = serials[:1] or virtio[:1]
    for one in chosen:
        value = "serial" if serials else "virtio"
        outcomes.carry(("console",), value, one.part("type") or Part(one))
        outcomes.drop(one, "the console is at `sevlaunch console NAME`, what it printed at `sevlaunch logs NAME`")
    ports = serials[1 : 1 + _FURTHER_PORTS]
    for one in ports:
        outcomes.carry(("serial_ports",), len(ports), one.part("type") or Part(one))
        outcomes.drop(one, "its socket is in the guest's folder")
    for one in (*serials, *virtio):
        if one not in (*chosen, *ports):
            outcomes.unsupported(one, "a machine has four serial ports" if one in serials else "one console")


def _vsock(conversion: Conversion, vsock: Element) -> None:
    cid = vsock.child("cid")
    outcomes = conversion.outcomes
    if cid.get("auto") == "yes":
        # The address is that of a run that is over, or will be.
        outcomes.carry(("vsock",), "auto", cid.part("auto"))
        outcomes.drop(cid.part("address"), "derived from the guest's name")
    elif number(cid.get("address")) is not None:
        outcomes.carry(("vsock",), number(cid.get("address")), cid.part("address"), cid.part("auto"))
    if ("vsock",) in outcomes.values:
        outcomes.same(vsock.part("model"), "virtio")
        import_dma_api(conversion, vsock, None)


def _share(conversion: Conversion, filesystem: Element) -> None:
    outcomes = conversion.outcomes
    source, target = filesystem.child("source"), filesystem.child("target")
    if conversion.encrypted:
        reason = "a process of the host would read the encrypted memory of the guest: use a disk"
        outcomes.refuse(filesystem, reason)
    elif filesystem.child("driver").get("type") != "virtiofs" or not source.get("dir"):
        outcomes.unsupported(filesystem, "folders are shared through virtiofs alone (shares)")
    elif filesystem.child("readonly"):
        outcomes.unsupported(filesystem, "shares can be written by the guest: none that is read-only")
    else:
        key = conversion.next("shares")
        outcomes.carry((*key, "path"), source.get("dir"), source.part("dir"), *_kinds(filesystem))
        outcomes.carry((*key, "tag"), target.get("dir"), target.part("dir"))


def _kinds(filesystem: Element) -> Iterator[Part | None]:
    yield filesystem.part("type")
    yield filesystem.child("driver").part("type")
    if filesystem.get("accessmode") == "passthrough":
        yield filesystem.part("accessmode")
