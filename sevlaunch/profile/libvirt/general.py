"""What a domain is called, its clock, and what happens when it ends."""

from __future__ import annotations

import re

from sevlaunch.profile.libvirt.conversion import Conversion
from sevlaunch.profile.libvirt.document import Element

# A guest's name is a folder's; see model.Profile.
_MAX_NAME_BYTES = 64

# Where distributions put the QEMU that qemu.binary: auto finds.
_USUAL_EMULATORS = ("/usr/bin/qemu-system-x86_64", "/usr/bin/qemu-kvm", "/usr/bin/kvm")


def import_general(conversion: Conversion) -> None:
    """Name, UUID, texts, and the reactions to reboots."""
    domain, ledger = conversion.domain, conversion.ledger
    _name(conversion, domain.child("name"))
    uuid = domain.child("uuid")
    if re.fullmatch(r"[0-9a-fA-F]{32}", uuid.text):
        digits = uuid.text
        dashed = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
        ledger.carry(("uuid",), dashed, uuid)
    else:
        ledger.carry(("uuid",), uuid.text, uuid)
    for name in ("title", "description"):
        ledger.same(domain.child(name), "stands at the profile's head, as a comment")
    _emulator(conversion, domain.child("devices").child("emulator"))
    _reboot(conversion, domain.child("on_reboot"))
    if domain.child("on_poweroff").text not in ("", "destroy"):
        ledger.unsupported(domain.child("on_poweroff"), "a power-off always ends QEMU")
    ledger.drop(domain.child("on_crash"), "without a panic device QEMU learns of no crash")


def emulator(domain: Element) -> str:
    """The QEMU that is to run the domain, as qemu.binary has it."""
    path = domain.child("devices").child("emulator").text
    return "auto" if path in ("", *_USUAL_EMULATORS) else path


def _emulator(conversion: Conversion, element: Element) -> None:
    if emulator(conversion.domain) == "auto":
        conversion.ledger.same(element, "the QEMU on PATH is taken")
    else:
        conversion.ledger.carry(("qemu", "binary"), element.text, element)


def _name(conversion: Conversion, name: Element) -> None:
    if not name:
        return
    fitting = "".join(character if character.isprintable() and character != "/" else "-" for character in name.text)
    fitting = fitting.lstrip(".-").encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    if fitting == name.text:
        conversion.ledger.carry(("name",), name.text, name)
    else:
        reason = "a guest's name is that of a folder, with at most 64 bytes"
        conversion.ledger.correct(("name",), fitting or "guest", name, reason)


def _reboot(conversion: Conversion, on_reboot: Element) -> None:
    action = on_reboot.text
    if action == "restart":
        conversion.ledger.carry(("on_reboot",), "relaunch", on_reboot)
    elif action == "destroy":
        conversion.ledger.carry(("on_reboot",), "stop", on_reboot)
    elif action:
        conversion.ledger.unsupported(on_reboot, "a reboot either ends the guest or brings it up again")
