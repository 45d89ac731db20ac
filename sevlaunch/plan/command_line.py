"""Plan -> argv: the options of every part, in the order a reader expects."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.firmware import firmware_machine_parameters, firmware_options
from sevlaunch.plan.machine import machine_options
from sevlaunch.plan.memory import memory_options
from sevlaunch.plan.option import Option, Parameter, Reason, flag, rule, verbatim
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.security import security_options


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
