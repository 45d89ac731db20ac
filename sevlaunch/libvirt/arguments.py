"""What no key of the profile stands for, as QEMU's own arguments: qemu:commandline."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion


def import_arguments(conversion: Conversion) -> None:
    """The arguments that the domain itself has for QEMU."""
    commandline = conversion.domain.child("qemu:commandline")
    for argument in commandline.all("qemu:arg"):
        value = argument.part("value")
        if value:
            conversion.arguments(value, argument.get("value") or "")
    for variable in commandline.all("qemu:env"):
        conversion.outcomes.unsupported(variable, "set it in the environment of `sevlaunch up`")
