"""What no key of the profile stands for, as QEMU's own arguments: watchdog, qemu:commandline."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element, Part

# qapi/run-state.json, WatchdogAction; libvirt's "dump" would need a core dump.
_WATCHDOG_ACTIONS = ("reset", "shutdown", "poweroff", "pause", "none", "inject-nmi")


def import_arguments(conversion: Conversion) -> None:
    """watchdog, and the arguments that the domain itself has for QEMU."""
    for watchdog in conversion.devices.all("watchdog"):
        _watchdog(conversion, watchdog)
    commandline = conversion.domain.child("qemu:commandline")
    for argument in commandline.all("qemu:arg"):
        value = argument.part("value")
        if value:
            conversion.arguments(value, argument.get("value") or "")
    for variable in commandline.all("qemu:env"):
        conversion.outcomes.unsupported(variable, "set it in the environment of `sevlaunch up`")


def _watchdog(conversion: Conversion, watchdog: Element) -> None:
    model, action = watchdog.get("model"), watchdog.get("action") or "reset"
    about = watchdog.part("model") or Part(watchdog)
    if action not in _WATCHDOG_ACTIONS or model not in ("itco", "i6300esb"):
        conversion.outcomes.unsupported(watchdog, f"no {model} watchdog with action {action}")
        return
    if model == "itco":
        conversion.arguments(about, "-global", "ICH9-LPC.noreboot=off")
    else:
        conversion.arguments(about, "-device", "i6300esb")
    conversion.arguments(watchdog.part("action") or about, "-watchdog-action", action)
