"""(Profile, Host) -> Plan -> argv, as pure functions. One module a concern; this one puts them together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from msgspec import Struct

from sevlaunch.errors import HostError, Problem
from sevlaunch.host.model import Host
from sevlaunch.plan.companion import Companion
from sevlaunch.plan.context import Context
from sevlaunch.plan.firmware import FirmwarePlan, firmware_machine_parameters, firmware_options, resolve_firmware
from sevlaunch.plan.machine import MachinePlan, machine_options, resolve_machine
from sevlaunch.plan.memory import MemoryPlan, memory_options, resolve_memory
from sevlaunch.plan.network import NetworkPlan, resolve_network
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, flag, rule, verbatim
from sevlaunch.plan.peripherals import PeripheralsPlan, resolve_peripherals
from sevlaunch.plan.security import SecurityPlan, resolve_security, security_options
from sevlaunch.plan.storage import StoragePlan, resolve_storage
from sevlaunch.profile.loader import LoadedProfile

# struct sockaddr_un, unix(7): 108 bytes with the final NUL.
MAX_SOCKET_PATH = 107

Reboot = Literal["reset", "relaunch", "stop"]


class Plan(Struct, frozen=True):
    """Every choice made for one guest, each with its reason. The command line is a function of this alone.

    ``reboot``: reset (QEMU resets the guest in place), relaunch (QEMU ends and is started anew), stop (QEMU ends).
    """

    name: str
    profile_file: str
    binary: Choice[str]
    qemu_version: str
    folder: Path
    state_folder: Path
    machine: MachinePlan
    memory: MemoryPlan
    firmware: FirmwarePlan
    security: SecurityPlan | None
    boot: tuple[Option, ...]
    boot_files: tuple[str, ...]
    storage: StoragePlan
    network: NetworkPlan
    peripherals: PeripheralsPlan
    reboot: Choice[Reboot]
    run_as: Choice[str] | None
    uuid: Choice[str] | None
    monitor_object: bool
    rehearsal: bool
    extra_args: tuple[Choice[str], ...]
    warnings: tuple[str, ...]

    @property
    def guest_type(self) -> str:
        """none, sev, sev-es or sev-snp."""
        return self.security.guest_type if self.security else "none"

    @property
    def companions(self) -> tuple[Companion, ...]:
        """The processes that run beside QEMU."""
        return (*self.network.companions, *self.peripherals.companions)

    @property
    def qmp_socket(self) -> Path:
        """Where QEMU listens for QMP."""
        return self.folder / "qmp.sock"

    @property
    def console_socket(self) -> Path | None:
        """Where QEMU listens for the console, if there is one."""
        return self.folder / "console.sock" if self.peripherals.console else None


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
            hint="Debian, Ubuntu: apt install qemu-system-x86; Fedora: dnf install qemu-system-x86-core; "
            "openSUSE: zypper install qemu-x86",
        )
    context = Context(loaded, host, host.qemu, rehearse and loaded.profile.security.type != "none")
    machine = resolve_machine(context)
    memory = resolve_memory(context, machine.accel.value)
    firmware = resolve_firmware(context)
    security = resolve_security(context, firmware)
    storage = resolve_storage(context)
    network = resolve_network(context)
    peripherals = resolve_peripherals(context)
    reboot = _reboot(context)
    run_as = _run_as(context)
    _check_socket_paths(context)
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
        memory=memory,
        firmware=firmware,
        security=security,
        boot=tuple(_boot(context)),
        boot_files=tuple(file for file in (profile.boot.kernel, profile.boot.initrd) if file),
        storage=storage,
        network=network,
        peripherals=peripherals,
        reboot=reboot,
        run_as=run_as,
        uuid=Choice(profile.uuid, context.why("uuid")) if profile.uuid else None,
        # QEMU 11.1 deprecates -mon for objects, which older ones don't have.
        monitor_object="monitor-qmp" in host.qemu.object_types,
        rehearsal=context.rehearse,
        extra_args=tuple(
            Choice(text, context.why("qemu", "extra_args", index)) for index, text in enumerate(profile.qemu.extra_args)
        ),
        warnings=tuple(context.warnings),
    )


def render(plan: Plan) -> tuple[Option, ...]:
    """The options of the command line, in the order a reader expects."""
    return tuple(_options(plan))


def argv(plan: Plan) -> list[str]:
    """The command line: the binary and its arguments. The same plan gives the same bytes."""
    return [plan.binary.value, *(argument for option in render(plan) for argument in option.argv)]


def _options(plan: Plan) -> Iterator[Option]:
    yield Option(
        "-name",
        (
            Parameter("guest", plan.name, rule("the guest's name")),
            Parameter("debug-threads", "on", rule("threads that tell what they are")),
        ),
    )
    if plan.uuid:
        yield verbatim("-uuid", plan.uuid.value, plan.uuid.reason)
    further = [*plan.memory.machine_parameters, *firmware_machine_parameters(plan.firmware)]
    if plan.security:
        further.append(plan.security.machine_parameter)
    yield from machine_options(plan.machine, tuple(further))
    yield from memory_options(plan.memory)
    yield from firmware_options(plan.firmware)
    if plan.security:
        yield from security_options(plan.security)
    yield from plan.boot
    yield from _defaults(plan)
    yield from _monitor(plan)
    yield from plan.storage.options
    yield from plan.network.options
    yield from plan.peripherals.options
    if plan.reboot.value != "reset":
        yield flag("-no-reboot", plan.reboot.reason)
    yield flag("-S", rule("paused until the measurement is read"))
    for extra in plan.extra_args:
        yield Option(extra.value, (), extra.reason)


def monitor_on(chardev: str, monitor_object: bool, why: Reason) -> Option:
    """A QMP monitor on a character device, in the spelling that the QEMU does not deprecate."""
    if monitor_object:
        parameters = (Parameter("", "monitor-qmp", why), Parameter("id", f"{chardev}-monitor", why))
        return Option("-object", (*parameters, Parameter("chardev", chardev, why)))
    return Option("-mon", (Parameter("chardev", chardev, why), Parameter("mode", "control", why)))


def _defaults(plan: Plan) -> Iterator[Option]:
    yield flag("-nodefaults", rule("no device that the profile does not name"))
    yield flag("-no-user-config", rule("nothing from /etc/qemu"))
    yield Option("-display", (Parameter("", "none", rule("no window")),))
    helper = plan.network.bridge_helper
    reason = rule("QEMU gives up what it does not need")
    for_helper = rule("qemu-bridge-helper is a set-uid program that QEMU has to start")
    yield Option(
        "-sandbox",
        (
            Parameter("", "on", reason),
            Parameter("obsolete", "deny", reason),
            Parameter("elevateprivileges", "children" if helper else "deny", for_helper if helper else reason),
            Parameter("spawn", "allow" if helper else "deny", for_helper if helper else reason),
            Parameter("resourcecontrol", "deny", reason),
        ),
    )


def _monitor(plan: Plan) -> Iterator[Option]:
    why = rule("sevlaunch's commands talk to QEMU through it")
    yield Option(
        "-chardev",
        (
            Parameter("", "socket", why),
            Parameter("id", "qmp", why),
            Parameter("path", str(plan.qmp_socket), why),
            Parameter("server", "on", why),
            Parameter("wait", "off", why),
        ),
    )
    yield monitor_on("qmp", plan.monitor_object, why)


def _boot(context: Context) -> Iterator[Option]:
    boot = context.profile.boot
    for name, key in (("-kernel", "kernel"), ("-initrd", "initrd"), ("-append", "cmdline")):
        value = getattr(boot, key)
        if value is not None:
            yield verbatim(name, value, context.why("boot", key))
    if boot.order:
        yield Option("-boot", (Parameter("strict", "on", context.why("boot", "order")),))


def _reboot(context: Context) -> Choice[Reboot]:
    wanted = context.profile.on_reboot
    if wanted == "stop":
        return Choice("stop", context.why("on_reboot"))
    if context.profile.security.type in ("sev-es", "sev-snp"):
        return Choice("relaunch", rule("an SEV-ES or SNP guest can't be reset: QEMU ends and is started anew"))
    return Choice("reset", context.why("on_reboot", default="QEMU resets the guest in place"))


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
    return Choice(user, context.why("run_as"))


def _check_socket_paths(context: Context) -> None:
    longest = str(context.folder / "console.sock")
    if len(longest.encode()) > MAX_SOCKET_PATH:
        context.refuse(
            f"the socket {longest} would have a path of {len(longest.encode())} bytes; a socket's path has at most "
            f"{MAX_SOCKET_PATH}",
            "name",
            hint="use a shorter name, or a shorter XDG_RUNTIME_DIR",
        )
