"""Checks of what is installed: QEMU and its SEV objects, firmware, what a rehearsal takes."""

from __future__ import annotations

from collections.abc import Callable

from sevlaunch.doctor.tree import ANY, ENCRYPTED, LOCKERS, SNP, HostCheck, Judgement, failed, ok, unknown, warning
from sevlaunch.guest_type import GuestType
from sevlaunch.host.firmware_choice import Wanted, choose
from sevlaunch.host.model import Host
from sevlaunch.host.packages import install_firmware
from sevlaunch.remedies import INSTALL_QEMU, MODULES, NEWER_QEMU, qemu_since

GUESTS = ENCRYPTED | {GuestType.NONE}


def _qemu(host: Host) -> Judgement:
    if host.qemu is None:
        return failed(host.qemu_problem, INSTALL_QEMU)
    return ok(f"{host.qemu.version}, {host.qemu.binary}")


def _object(name: str) -> Callable[[Host], Judgement]:
    def judge(host: Host) -> Judgement:
        assert host.qemu is not None
        if name not in host.qemu.objects:
            return failed(
                f"QEMU {host.qemu.version} has no object {name}, which came with QEMU {qemu_since(name)}",
                NEWER_QEMU,
            )
        return ok("there")

    return judge


def _firmware(guest_type: GuestType) -> Callable[[Host], Judgement]:
    def judge(host: Host) -> Judgement:
        if host.qemu is None:
            return unknown("depends on QEMU's machine types")
        machine = host.qemu.machines.get("q35", "q35")
        choice = choose(host, Wanted(guest_type=guest_type, machine=machine, pflash=guest_type.has_pflash))
        over = "; ".join(f"{file.rpartition('/')[2]}: {reason}" for file, reason in choice.passed_over.items())
        passed_over = f" (passed over: {over})" if over else ""
        if not choice.fitting:
            return failed(f"none fits{passed_over}", install_firmware(host.distribution, guest_type))
        path = choice.fitting[0].executable
        return ok(f"{path}{_supports(host, path)}{passed_over}")

    return judge


def _supports(host: Host, path: str) -> str:
    image = host.firmware_image(path)
    if image is None:
        return ""
    parts = [
        name
        for name, there in (
            ("SEV-ES reset vector", image.es_reset_vector is not None),
            ("hashes table", image.hashes_table),
            ("secret area", image.secret_area),
            ("SNP metadata", image.snp_metadata),
        )
        if there
    ]
    return f", with {', '.join(parts)}" if parts else ""


def _descriptors(host: Host) -> Judgement:
    if host.firmware_problems:
        return warning("; ".join(host.firmware_problems), "repair or remove these firmware descriptors")
    return ok(f"{len(host.firmware)} read")


def _rehearsal(host: Host) -> Judgement:
    actions = host.platform.seccomp_actions if host.platform else []
    if host.platform is None or not actions:
        return unknown("/proc/sys/kernel/seccomp/actions_avail can't be read")
    if "user_notif" not in actions:
        return failed("the kernel has no seccomp user notification", "use Linux 5.5 or newer")
    return ok("seccomp user notification is there")


def _rehearsal_kvm(host: Host) -> Judgement:
    if not host.kvm.runs_firmware:
        return warning(
            f"{host.kvm.module or 'this KVM'} can't run firmware code: only the launch can be rehearsed",
            "rehearse with --paused here",
        )
    return ok("the guest boots after the rehearsed launch")


def _extra_device(path: str) -> Callable[[Host], Judgement]:
    def judge(host: Host) -> Judgement:
        device = next((one for one in host.platform.devices if one.path == path), None) if host.platform else None
        if device is None:
            return unknown("not looked at")
        if not device.exists:
            return warning("missing", MODULES[path])
        if not device.openable:
            return warning(f"can't be opened: {device.error}", f"setfacl -m u:$USER:rw {path}, or leave it out")
        return ok("can be opened")

    return judge


QEMU = HostCheck("qemu", "QEMU", _qemu, "QEMU runs the guest.", ANY, ANY)

QEMU_OBJECTS = tuple(
    HostCheck(
        f"qemu.{name}",
        name,
        _object(name),
        "QEMU's object for the guest's encryption.",
        needed_by,
        needed_by,
    )
    for name, needed_by in (("sev-guest", LOCKERS | {"rehearsal"}), ("sev-snp-guest", SNP))
)

FIRMWARE = HostCheck(
    "firmware",
    "firmware descriptors",
    _descriptors,
    "firmware: auto takes the first that fits.",
    GUESTS,
    children=tuple(
        HostCheck(
            f"firmware.{guest_type}",
            f"OVMF for {guest_type}",
            _firmware(guest_type),
            "The guest's firmware has to be built for its type. A profile may name one that no descriptor tells of.",
            frozenset((guest_type,)),
            frozenset((guest_type,)),
        )
        for guest_type in GuestType
    ),
)

REHEARSAL = HostCheck(
    "rehearsal",
    "rehearsal",
    _rehearsal,
    "A launch can be tried without SEV: ioctls of QEMU are answered by an emulated secure processor.",
    frozenset(("rehearsal",)),
    frozenset(("rehearsal",)),
    children=(
        HostCheck(
            "rehearsal.boot",
            "after the launch",
            _rehearsal_kvm,
            "A rehearsed guest runs as an ordinary one.",
            concerns=frozenset(("rehearsal",)),
        ),
    ),
)

EXTRAS = tuple(
    HostCheck(path.removeprefix("/dev/").rpartition("/")[2].replace("-", "_"), path, _extra_device(path), why)
    for path, why in (
        ("/dev/net/tun", "Networks of type tap and bridge."),
        ("/dev/vhost-net", "Quicker tap networks (vhost: true)."),
        ("/dev/vhost-vsock", "vsock between host and guest."),
    )
)
