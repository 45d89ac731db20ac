"""Plan -> argv: the options of every part, in the order a reader expects."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sevlaunch.plan.console import listening
from sevlaunch.plan.option import Option, Parameter, Reason, flag, rule, verbatim
from sevlaunch.plan.places import COMMANDS_SOCKET, PROGRAMS_SOCKET
from sevlaunch.plan.plan import Plan


def render(plan: Plan) -> tuple[Option, ...]:
    """The options of the command line, in the order a reader expects.

    :raise UsageError: when the plan is not complete.
    """
    plan.require_complete()
    return tuple(_options(plan))


def argv(plan: Plan) -> list[str]:
    """The command line: the binary and its arguments. The same plan gives the same bytes."""
    return [plan.binary.value, *(argument for option in render(plan) for argument in option.argv)]


def choices(plan: Plan) -> list[dict[str, Any]]:
    """The command line as data: each option with its parameters and their reasons."""
    return [
        {
            "option": option.name,
            "argv": list(option.argv),
            "reason": str(option.reason) if option.reason else None,
            "parameters": [
                {"key": parameter.key, "value": parameter.value, "reason": str(parameter.reason)}
                for parameter in option.parameters
            ],
        }
        for option in render(plan)
    ]


def helper_documents(plan: Plan) -> list[dict[str, Any]]:
    """The helper programs as data: name, command line, and the socket that each listens on."""
    return [
        {"name": companion.name, "argv": list(companion.argv), "socket": companion.socket}
        for companion in plan.companions
    ]


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
    yield Option("-machine", tuple(parameter for part in plan.board for parameter in part.machine_properties()))
    for part in plan.board:
        yield from part.options()
    yield from _defaults(plan)
    yield from _monitors(plan)
    for part in plan.attached:
        yield from part.options()
    if plan.reboot.value != "reset":
        yield flag("-no-reboot", plan.reboot.reason)
    if plan.crash.value == "keep":
        # QEMU would end by itself.
        yield Option("-action", (Parameter("panic", "pause", plan.crash.reason),))
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
    reason = rule("QEMU gives up what it does not need")
    yield Option(
        "-sandbox",
        (
            Parameter("", "on", reason),
            Parameter("obsolete", "deny", reason),
            Parameter("elevateprivileges", "deny", reason),
            Parameter("spawn", "deny", reason),
            Parameter("resourcecontrol", "deny", reason),
        ),
    )


def _monitors(plan: Plan) -> Iterator[Option]:
    """A monitor serves one client at a time: sevlaunch's commands have one that no program keeps them from."""
    for chardev, name, why in (
        ("commands", COMMANDS_SOCKET, rule("sevlaunch's commands talk to QEMU through it")),
        ("qmp", PROGRAMS_SOCKET, rule("for programs that attach to the guest")),
    ):
        yield listening(chardev, plan.qemu_folder / name, why)
        yield monitor_on(chardev, plan.monitor_object, why)
