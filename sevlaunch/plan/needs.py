"""What a guest asks of its host: said once by each part of its plan, read by preflight, doctor and the systemd unit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Literal, TypeVar

from msgspec import Struct

from sevlaunch.plan.option import Option

T = TypeVar("T", bound=Hashable)


class NeededDevice(Struct, frozen=True):
    """A device file that is opened for reading and, with ``write``, for writing.

    ``what`` it is for people; ``why`` it is needed, as a sentence; ``remedy``: how to get it where it is missing.
    ``probed``: the host's facts tell of it, so that it was judged for this user before there was a plan.
    ``by_launcher``: not QEMU opens it, but the user who starts the guest, or a helper program of that user's.
    """

    path: str
    why: str
    remedy: str
    write: bool = True
    what: str = "device"
    probed: bool = False
    by_launcher: bool = False


class NeededFile(Struct, frozen=True):
    """A file, or with ``folder`` a folder, that is read and, with ``write``, written.

    ``remedy``: what to do where it is missing; ``instead``: where it can't be written. ``template``: what it is made
    from at the start, if it is not there.
    ``image_format``: how QEMU opens a disk's image.
    ``by_launcher``: not QEMU opens it, but the user who starts the guest.
    ``granted``: it lies in a folder of sevlaunch's, which gives QEMU access at the start.
    """

    path: str
    what: str
    remedy: str
    write: bool = False
    folder: bool = False
    instead: str = ""
    template: str | None = None
    granted: bool = False
    image_format: str = ""
    by_launcher: bool = False


class Companion(Struct, frozen=True):
    """A helper program. It is started before QEMU, which connects to ``socket`` once it is there.

    ``program`` is looked for on PATH, then in the places of ``fallbacks``; ``remedy``: how to install it.
    """

    name: str
    program: str
    options: tuple[Option, ...]
    socket: str
    remedy: str
    fallbacks: tuple[str, ...] = ()

    @property
    def argv(self) -> tuple[str, ...]:
        """Its command line."""
        return (self.program, *(argument for option in self.options for argument in option.argv))


class NeededProgram(Struct, frozen=True):
    """A program that the launcher runs, and waits for, before QEMU starts; else as :class:`Companion`.

    ``gains_rights``: it is set-uid, or has file capabilities, because an ordinary user lacks what it does.
    """

    program: str
    remedy: str
    fallbacks: tuple[str, ...] = ()
    gains_rights: bool = False


class NeededInterface(Struct, frozen=True):
    """A network interface of the host that is there already. ``remedy``: how to make it.

    ``queues``: how many of its queues are opened; ``mac``: the only address that it lets through to the guest; ``mtu``:
    what it has to carry, in bytes.
    """

    name: str
    kind: Literal["bridge", "tap", "macvtap"]
    remedy: str
    queues: int = 1
    mac: str | None = None
    mtu: int | None = None

    @property
    def opened(self) -> bool:
        """Whether it has a device file of its own, which the launcher opens; others are behind /dev/net/tun."""
        return self.kind == "macvtap"


class Descriptor(Struct, frozen=True):
    """An open tap interface that QEMU is handed as the file descriptor ``number`` of its command line.

    The launcher gets it from qemu-bridge-helper (``bridge``: its bridge), opens it (``macvtap``: the interface), or has
    it already, under that number (``given``).
    """

    number: int
    kind: Literal["bridge", "macvtap", "given"]
    name: str = ""


class Needs(Struct, frozen=True):
    """All that is asked of the host.

    ``capabilities`` as in capabilities(7); ``namespaces`` that are made, as in systemd's RestrictNamespaces=;
    ``address_families`` and ``system_calls`` beside those of every guest, as systemd names them; ``runtime_folders``:
    folders of helper programs below /run. ``descriptors``: what is open already when QEMU starts.
    ``state_folders``: in the guest's state folder, made at the start, and QEMU's account's own.
    ``locked_memory`` and ``memory_limit`` in bytes; a limit of None: none. ``environment``: variables of QEMU.
    """

    devices: tuple[NeededDevice, ...] = ()
    files: tuple[NeededFile, ...] = ()
    companions: tuple[Companion, ...] = ()
    programs: tuple[NeededProgram, ...] = ()
    interfaces: tuple[NeededInterface, ...] = ()
    descriptors: tuple[Descriptor, ...] = ()
    capabilities: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    address_families: tuple[str, ...] = ()
    system_calls: tuple[str, ...] = ()
    runtime_folders: tuple[str, ...] = ()
    state_folders: tuple[str, ...] = ()
    locked_memory: int = 0
    memory_limit: int | None = None
    environment: tuple[tuple[str, str], ...] = ()


def merged(parts: Iterable[Needs]) -> Needs:
    """The needs of several parts together, each thing once, in the order in which it was asked for."""
    all_needs = tuple(parts)
    limits = [needs.memory_limit for needs in all_needs if needs.memory_limit is not None]
    return Needs(
        devices=_devices(device for needs in all_needs for device in needs.devices),
        files=_once(file for needs in all_needs for file in needs.files),
        companions=_once(companion for needs in all_needs for companion in needs.companions),
        programs=_once(program for needs in all_needs for program in needs.programs),
        interfaces=_once(interface for needs in all_needs for interface in needs.interfaces),
        descriptors=_once(descriptor for needs in all_needs for descriptor in needs.descriptors),
        capabilities=_once(name for needs in all_needs for name in needs.capabilities),
        namespaces=_once(name for needs in all_needs for name in needs.namespaces),
        address_families=_once(name for needs in all_needs for name in needs.address_families),
        system_calls=_once(name for needs in all_needs for name in needs.system_calls),
        runtime_folders=_once(name for needs in all_needs for name in needs.runtime_folders),
        state_folders=_once(folder for needs in all_needs for folder in needs.state_folders),
        locked_memory=sum(needs.locked_memory for needs in all_needs),
        memory_limit=sum(limits) if limits else None,
        environment=_once(variable for needs in all_needs for variable in needs.environment),
    )


def device_or_file(path: str, what: str, why: str, remedy: str, *, write: bool, instead: str = "") -> Needs:
    """The need of a path that a profile names: below /dev it is a device."""
    if is_device(path):
        return Needs(devices=(NeededDevice(path, why, remedy, write=write, what=what),))
    return Needs(files=(NeededFile(path, what, remedy, write=write, instead=instead),))


def is_device(path: str) -> bool:
    """Whether a path that a profile names is a device file's."""
    return path.startswith("/dev/")


def _once(found: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(found))


def _devices(found: Iterable[NeededDevice]) -> tuple[NeededDevice, ...]:
    """Each path once; it is written to if one of those who ask for it writes."""
    devices: dict[str, NeededDevice] = {}
    for device in found:
        known = devices.get(device.path)
        if known is None or (device.write and not known.write):
            devices[device.path] = device
    return tuple(devices.values())
