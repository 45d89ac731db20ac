"""QEMU's options, 7.2 to 11.1, and which of them ``qemu.extra_args`` may give: qemu-options.hx, hidden ones included.

An option that is not here is refused: what it does, and whether it takes a value, is not known.
"""

from __future__ import annotations

from typing import NamedTuple

Release = tuple[int, int]


class QemuOption(NamedTuple):
    """What is known of an option.

    ``refused``: why no guest can have it; ``encrypted``: why an encrypted guest can't; ``warned``: what it does to any
    guest; ``warned_encrypted``: to an encrypted one. A reason stands behind the option's name, and says what to do
    instead. ``since`` and ``gone``: the first QEMU with it, where that is after 7.2, and the first one without it.
    """

    takes_value: bool = True
    refused: str = ""
    encrypted: str = ""
    warned: str = ""
    warned_encrypted: str = ""
    since: Release | None = None
    gone: Release | None = None


# Options that a key of the profile sets, or sevlaunch itself: a second one would contradict what the plan says and
# evidence shows.
OWNED = {
    "machine": "machine",
    "M": "machine",
    "accel": "accel",
    "enable-kvm": "accel",
    "cpu": "cpu.model",
    "smp": "cpu.count",
    "m": "memory.size",
    "overcommit": "memory.lock",
    "mem-prealloc": "memory.prealloc",
    "mem-path": "memory.hugepages",
    "numa": "numa",
    "bios": "firmware.image",
    "pflash": "firmware.code",
    "kernel": "boot.kernel",
    "initrd": "boot.initrd",
    "append": "boot.cmdline",
    "name": "name",
    "uuid": "uuid",
    "S": "the --paused option of `sevlaunch up`",
    "no-reboot": "on_reboot",
    "qmp": "`sevlaunch qmp`",
    "qmp-pretty": "`sevlaunch qmp`",
    "monitor": "`sevlaunch qmp`",
    "mon": "`sevlaunch qmp`",
    "pidfile": "`sevlaunch status`",
    "daemonize": "`sevlaunch up`, which starts guests in the background",
    "sandbox": "sevlaunch itself, always on",
    "chroot": "the user who calls sevlaunch, or run_as",
    "runas": "run_as",
    "run-with": "run_as",
    "preconfig": "sevlaunch itself, which starts every guest paused",
    "readconfig": "the keys of the profile",
}

STATE = "encrypted memory can't be saved or restored: start the guest afresh"
FLOPPY = "makes a floppy drive, whose controller goes past the DMA API: use disks, with cdrom: true for what is read"
NO_CONTROLLER = "makes a disk for a controller that a PC does not have: use disks"
OUTSIDE = "runs code that no measurement has in it"
_DEBUGS = "lets every program that reaches it read and change the guest, as a debugger does"
DEBUGGER = (
    "lets a program on the host read and change the guest, as a debugger does: leave it out, or use security: none"
)
_NO_GUEST = "makes QEMU print, and end: run it by hand"
_XEN = "is for Xen; sevlaunch's guests run with KVM or TCG: leave it out"
_TCG = "is for TCG, and an encrypted guest runs with KVM: leave it out"

_FLAGS = (
    "S",
    "async-teardown",
    "audio-help",
    "daemonize",
    "enable-kvm",
    "enable-sync-profile",
    "full-screen",
    "h",
    "help",
    "jitdump",
    "mem-prealloc",
    "no-acpi",
    "no-fd-bootchk",
    "no-hpet",
    "no-reboot",
    "no-shutdown",
    "no-user-config",
    "nodefaults",
    "nographic",
    "only-migratable",
    "perfmap",
    "portrait",
    "preconfig",
    "s",
    "singlestep",
    "snapshot",
    "usb",
    "version",
    "win2k-hack",
    "xen-attach",
    "xen-domid-restrict",
)
# Without a rule of their own; what some of them may not have as a value is in option_values.py.
_ALLOWED = (
    "D",
    "L",
    "action",
    "async-teardown",
    "audio",
    "audiodev",
    "blockdev",
    "boot",
    "cdrom",
    "chardev",
    "d",
    "debugcon",
    "device",
    "dfilter",
    "display",
    "drive",
    "echr",
    "enable-sync-profile",
    "fsdev",
    "full-screen",
    "fw_cfg",
    "global",
    "hda",
    "hdb",
    "hdc",
    "hdd",
    "icount",
    "iscsi",
    "jitdump",
    "k",
    "msg",
    "netdev",
    "no-fd-bootchk",
    "no-hpet",
    "no-user-config",
    "nodefaults",
    "nographic",
    "object",
    "parallel",
    "perfmap",
    "portrait",
    "qtest-log",
    "rotate",
    "rtc",
    "seed",
    "serial",
    "smbios",
    "spice",
    "trace",
    "usb",
    "usbdevice",
    "vga",
    "vnc",
    "watchdog-action",
    "win2k-hack",
)


_RULES = {
    **dict.fromkeys(_ALLOWED, QemuOption()),
    **{name: QemuOption(refused=f"is set by sevlaunch: use {key}") for name, key in OWNED.items()},
    **dict.fromkeys(("h", "help", "version", "audio-help", "dump-vmstate"), QemuOption(refused=_NO_GUEST)),
    **dict.fromkeys(("xen-attach", "xen-domid", "xen-domid-restrict"), QemuOption(refused=_XEN)),
    **dict.fromkeys(("sd", "mtdblock"), QemuOption(refused=NO_CONTROLLER)),
    "incoming": QemuOption(
        refused="makes QEMU wait for another one's state, and sevlaunch starts guests afresh: leave it out",
    ),
    "snapshot": QemuOption(
        refused="has no power over disks of a profile, which would be written all the same: copy the image first",
    ),
    "add-fd": QemuOption(
        refused="names a file descriptor, and QEMU inherits none of a profile's: name the file itself"
    ),
    **dict.fromkeys(("loadvm", "only-migratable"), QemuOption(encrypted=STATE)),
    **dict.fromkeys(("fda", "fdb"), QemuOption(encrypted=FLOPPY)),
    **dict.fromkeys(("net", "nic"), QemuOption(encrypted="makes devices without the DMA API: use networks")),
    "virtfs": QemuOption(encrypted="makes a device without the DMA API: use a disk"),
    **dict.fromkeys(("s", "gdb", "qtest"), QemuOption(encrypted=DEBUGGER, warned=_DEBUGS)),
    "plugin": QemuOption(encrypted=f"loads a program that watches the guest; it {_TCG}"),
    "singlestep": QemuOption(encrypted=_TCG),
    **dict.fromkeys(
        ("option-rom", "shim", "dtb"), QemuOption(encrypted=f"{OUTSIDE}: put it into a disk or the initrd of the guest")
    ),
    "set": QemuOption(
        encrypted="changes what other options say: use the keys of the profile, or give the option the right value",
        warned="changes what other options say, so that what `sevlaunch render` explains is not what QEMU does",
    ),
    "no-shutdown": QemuOption(
        warned="keeps QEMU when the guest has powered off: `sevlaunch down` ends it at its time limit, and `status` "
        "tells of a guest",
    ),
    "no-acpi": QemuOption(warned="takes away the power button that `sevlaunch down` presses"),
    "compat": QemuOption(warned="also decides what QEMU takes from sevlaunch's own commands"),
    "acpitable": QemuOption(warned_encrypted="adds code for the guest's kernel (AML) that no measurement has in it"),
    "tpmdev": QemuOption(warned_encrypted="keeps the TPM's secrets on the host, which can read them; use the key tpm"),
}

_VERSIONS: dict[str, tuple[Release | None, Release | None]] = {
    # docs/about/removed-features.rst of QEMU 10.0; what came is told by those of 7.2, 10.0 and 11.1.
    "audio-help": (None, (8, 2)),
    "async-teardown": (None, (9, 0)),
    "chroot": (None, (9, 0)),
    "no-acpi": (None, (9, 0)),
    "no-hpet": (None, (9, 0)),
    "singlestep": (None, (9, 0)),
    "portrait": (None, (9, 2)),
    "rotate": (None, (9, 2)),
    "runas": (None, (10, 0)),
    "jitdump": ((8, 0), None),
    "perfmap": ((8, 0), None),
    "run-with": ((8, 1), None),
    "shim": ((10, 0), None),
}


def _complete(name: str, rule: QemuOption) -> QemuOption:
    since, gone = _VERSIONS.get(name, (None, None))
    return rule._replace(takes_value=name not in _FLAGS, since=since, gone=gone)


OPTIONS = {name: _complete(name, rule) for name, rule in _RULES.items()}
