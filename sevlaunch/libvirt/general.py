"""What a domain is called, its clock, and what happens when it ends."""

from __future__ import annotations

import re

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element

# A guest's name is a folder's; see model.Profile.
_MAX_NAME_BYTES = 64

# Where distributions put the QEMU that qemu.binary: auto finds.
_USUAL_EMULATORS = ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-kvm", "/usr/bin/kvm")

# What libvirt does when a guest crashes -> on_crash.
_CRASHES = {"destroy": "stop", "restart": "relaunch", "preserve": "keep"}


def import_general(conversion: Conversion) -> None:
    """Name, UUID, texts, and the reactions to reboots."""
    domain, outcomes = conversion.domain, conversion.outcomes
    _name(conversion, domain.child("name"))
    uuid = domain.child("uuid")
    if re.fullmatch(r"[0-9a-fA-F]{32}", uuid.text):
        digits = uuid.text
        dashed = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        outcomes.carry(("uuid",), dashed, uuid)
    else:
        outcomes.carry(("uuid",), uuid.text, uuid)
    for name in ("title", "description"):
        outcomes.same(domain.child(name), "stands at the profile's head, as a comment")
    _emulator(conversion, domain.child("devices").child("emulator"))
    _reboot(conversion, domain.child("on_reboot"))
    if domain.child("on_poweroff").text not in ("", "destroy"):
        outcomes.unsupported(domain.child("on_poweroff"), "a power-off always ends QEMU")
    _crash(conversion, domain.child("on_crash"))


def emulator(domain: Element) -> str:
    """The QEMU that is to run the domain, as qemu.binary has it."""
    path = domain.child("devices").child("emulator").text
    return "auto" if path in ("", *_USUAL_EMULATORS) else path


def _emulator(conversion: Conversion, element: Element) -> None:
    if emulator(conversion.domain) == "auto":
        conversion.outcomes.same(element, "the QEMU on PATH is taken")
    else:
        conversion.outcomes.carry(("qemu", "binary"), element.text, element)


def _name(conversion: Conversion, name: Element) -> None:
    if not name:
        return
    fitting = "".join(character if character.isprintable() and character != "/" else "-" for character in name.text)
    fitting = fitting.lstrip(".-").encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    if fitting == name.text:
        conversion.outcomes.carry(("name",), name.text, name)
    else:
        reason = "a guest's name is that of a folder, with at most 64 bytes"
        conversion.outcomes.correct(("name",), fitting or "guest", name, reason)


def _reboot(conversion: Conversion, on_reboot: Element) -> None:
    action = on_reboot.text
    if action == "restart":
        conversion.outcomes.carry(("on_reboot",), "relaunch", on_reboot)
    elif action == "destroy":
        conversion.outcomes.carry(("on_reboot",), "stop", on_reboot)
    elif action:
        conversion.outcomes.unsupported(on_reboot, "a reboot either ends the guest or brings it up again")


def _crash(conversion: Conversion, on_crash: Element) -> None:
    action = on_crash.text
    if action in _CRASHES:
        conversion.outcomes.carry(("on_crash",), _CRASHES[action], on_crash)
    elif action:
        conversion.outcomes.unsupported(on_crash, "a crash either ends the guest, or brings it up again, or leaves it")
