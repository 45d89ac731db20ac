"""(Profile, Host) -> Plan, as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sevlaunch.errors import HostError, Problem
from sevlaunch.host.model import Host
from sevlaunch.plan.addresses import buses_behind
from sevlaunch.plan.boot import resolve_boot
from sevlaunch.plan.console import resolve_agent, resolve_console
from sevlaunch.plan.context import Context
from sevlaunch.plan.cpu import LAST_XAPIC_ID, resolve_cpu
from sevlaunch.plan.devices import resolve_balloon, resolve_rng, resolve_vsock
from sevlaunch.plan.firmware import resolve_firmware
from sevlaunch.plan.machine import resolve_machine
from sevlaunch.plan.memory import resolve_memory
from sevlaunch.plan.network import resolve_networks
from sevlaunch.plan.option import Choice, rule
from sevlaunch.plan.part import Part
from sevlaunch.plan.places import LONGEST_SOCKET
from sevlaunch.plan.plan import Plan, Reboot
from sevlaunch.plan.storage import NO_DISKS, StoragePlan
from sevlaunch.plan.topology import highest_apic_id
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.profile.model import Clock, NoDisplay, SevSecurity, Smbios, SnpSecurity
from sevlaunch.remedies import INSTALL_QEMU

if TYPE_CHECKING:
    from sevlaunch.plan.first_boot import FirstBootPlan
    from sevlaunch.plan.initdata import InitDataPlan
    from sevlaunch.plan.security import SecurityPlan

# struct sockaddr_un, unix(7): 108 bytes with the final NUL.
MAX_SOCKET_PATH = 107


def _video(context: Context) -> Iterator[Part]:
    if context.profile.video.type != "none":
        from sevlaunch.plan.video import resolve_video

        yield resolve_video(context)


def _display(context: Context) -> Iterator[Part]:
    display = context.profile.display
    if not isinstance(display, NoDisplay):
        from sevlaunch.plan.display import resolve_display

        yield from resolve_display(context, display)


def _channels(context: Context) -> Iterator[Part]:
    if context.profile.channels:
        from sevlaunch.plan.channels import resolve_channels

        yield from resolve_channels(context)


def _tpm(context: Context) -> Iterator[Part]:
    if context.profile.tpm is not None:
        from sevlaunch.plan.tpm import resolve_tpm

        yield from resolve_tpm(context, context.profile.tpm)


def _shares(context: Context) -> Iterator[Part]:
    if context.profile.shares:
        from sevlaunch.plan.shares import resolve_shares

        yield from resolve_shares(context)


def _board(context: Context) -> Iterator[Part]:
    profile = context.profile
    kept = (profile.clock, profile.smbios) == (Clock(), Smbios())
    told = profile.fw_cfg or profile.ignition or profile.credentials
    if not kept or told or profile.watchdog or profile.panic or profile.serial_ports:
        from sevlaunch.plan.board import resolve_board

        yield from resolve_board(context)


def _iommu(context: Context, accel: str) -> Iterator[Part]:
    wanted = context.profile.iommu.type
    if wanted != "none" and (wanted != "auto" or highest_apic_id(context.profile.cpu) > LAST_XAPIC_ID):
        from sevlaunch.plan.iommu import resolve_iommu

        yield from resolve_iommu(context, accel)


# The devices beside disks and networks, in the order of the command line: each function yields those of one kind. What
# few guests have is imported for those.
_DEVICES: tuple[Callable[[Context], Iterator[Part]], ...] = (
    resolve_console,
    resolve_rng,
    resolve_balloon,
    _video,
    _display,
    resolve_vsock,
    resolve_agent,
    _channels,
    _tpm,
    _shares,
    _board,
)


def resolve(loaded: LoadedProfile, host: Host, *, rehearse: bool = False) -> Plan:
    """The plan for ``loaded`` on ``host``.

    :param rehearse: for a launch with the emulated secure processor: only cbitpos and sev-device differ.
    :raise ProfileError: when the profile asks for what can't work on this host.
    :raise HostError: when the host lacks what the plan needs; all of it is listed.
    """
    if host.qemu is None:
        raise HostError(
            f"this host can't run {loaded.profile.name}",
            problems=[Problem(f"QEMU: {host.qemu_problem}")],
            hint=INSTALL_QEMU,
        )
    context = Context(loaded, host, host.qemu, rehearse=rehearse and loaded.profile.security.encrypted)
    machine = resolve_machine(context)
    cpu = resolve_cpu(context, machine.accel.value)
    memory = resolve_memory(context, machine.accel.value)
    firmware = resolve_firmware(context)
    security = _security(context)
    iommu = tuple(_iommu(context, machine.accel.value))
    storage = _storage(context)
    first_boot = _first_boot(context)
    initdata = _initdata(context)
    networks = resolve_networks(context)
    devices = tuple(device for resolve_device in _DEVICES for device in resolve_device(context))
    reboot = _reboot(context)
    run_as = _run_as(context)
    _check_socket_paths(context)
    _check_extra_args(context)
    boot = resolve_boot(context)
    context.raise_problems()
    assert firmware is not None, "resolve_firmware notes a problem where it finds none"
    profile = loaded.profile
    return Plan(
        name=profile.name,
        profile_file=loaded.file,
        binary=Choice(host.qemu.binary, context.why("qemu", "binary", default="the first QEMU on PATH")),
        qemu_version=host.qemu.version,
        folder=context.folder,
        state_folder=context.state_folder,
        machine=machine,
        cpu=cpu,
        memory=memory,
        firmware=firmware,
        security=security,
        boot=boot,
        buses=buses_behind(context.root_bus, context.addresses),
        iommu=iommu,
        storage=storage,
        first_boot=first_boot,
        initdata=initdata,
        networks=networks,
        devices=devices,
        reboot=reboot,
        crash=context.choice(profile.on_crash, "on_crash", default="a guest that can't go on is ended"),
        run_as=run_as,
        uuid=context.choice_or_none(profile.uuid, "uuid"),
        # QEMU 11.1 deprecates -mon for objects, which older ones don't have.
        monitor_object="monitor-qmp" in host.qemu.object_types,
        rehearsal=context.rehearse,
        extra_args=tuple(
            context.choice(text, "qemu", "extra_args", index) for index, text in enumerate(profile.qemu.extra_args)
        ),
        warnings=(*map(str, loaded.warnings), *context.warnings),
        origin=loaded.origin,
    )


def _security(context: Context) -> SecurityPlan | None:
    security = context.profile.security
    if not isinstance(security, (SevSecurity, SnpSecurity)):
        return None
    from sevlaunch.plan.security import resolve_security

    return resolve_security(context, security)


def _storage(context: Context) -> StoragePlan:
    if not context.profile.disks:
        return NO_DISKS
    from sevlaunch.plan.disks import resolve_disks

    return resolve_disks(context)


def _first_boot(context: Context) -> FirstBootPlan | None:
    said = context.profile.first_boot
    if said is None:
        return None
    from sevlaunch.plan.first_boot import resolve_first_boot

    return resolve_first_boot(context, said)


def _initdata(context: Context) -> InitDataPlan | None:
    said = context.profile.initdata
    if said is None:
        return None
    from sevlaunch.plan.initdata import resolve_initdata

    return resolve_initdata(context, said)


def _reboot(context: Context) -> Choice[Reboot]:
    wanted = context.profile.on_reboot
    if wanted == "stop":
        return context.choice("stop", "on_reboot")
    if not context.profile.security.resets_in_place:
        return Choice("relaunch", rule("an SEV-ES or SNP guest can't be reset: QEMU ends and is started anew"))
    return context.choice("reset", "on_reboot", default="QEMU resets the guest in place")


def _run_as(context: Context) -> Choice[str] | None:
    user = context.other_user
    if user is None:
        return None
    if context.host.user != "root":
        context.lack(
            f"run_as asks for the user {user}, and {context.host.user} can't become another one",
            hint=f"start it as root or as {user}, or leave run_as out",
        )
    if context.rehearse:
        context.refuse(
            "a rehearsal runs QEMU as the user who starts it", "run_as", hint="leave run_as out: --set run_as=null"
        )
    return context.choice(user, "run_as")


def _check_extra_args(context: Context) -> None:
    args = context.profile.qemu.extra_args
    if not args:
        return
    # Most profiles have none, and QEMU's options are many.
    from sevlaunch.profile.extra_args import check_release

    for finding in check_release(args, context.qemu.release):
        message = f"{finding.message}, and this is QEMU {context.qemu.version}"
        context.refuse(message, "qemu", "extra_args", finding.position, hint="leave it out, or set qemu.binary")


def _check_socket_paths(context: Context) -> None:
    longest = str(context.qemu_folder / LONGEST_SOCKET)
    if len(longest.encode()) > MAX_SOCKET_PATH:
        context.refuse(
            f"the socket {longest} would have a path of {len(longest.encode())} bytes; a socket's path has at most "
            f"{MAX_SOCKET_PATH}",
            "name",
            hint="use a shorter name, or a shorter XDG_RUNTIME_DIR",
        )
