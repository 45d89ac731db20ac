"""The firmware, and what it boots: os/loader, os/nvram, os/boot, direct kernel boot."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element, Part

_FORMATS = ("raw", "qcow2")
_DIRECT = {"kernel": "kernel", "initrd": "initrd", "cmdline": "cmdline"}


def import_boot(conversion: Conversion) -> None:
    """Firmware and direct boot; the order of devices needs the devices, see :mod:`.boot_order`."""
    os_element = conversion.domain.child("os")
    _firmware(conversion, os_element)
    for name, key in _DIRECT.items():
        element = os_element.child(name)
        if element.text:
            conversion.outcomes.carry(("boot", key), element.text, element)
    menu = os_element.child("bootmenu")
    if menu.get("enable") == "no":
        conversion.outcomes.same(menu.part("enable"), "no boot menu")
    else:
        conversion.outcomes.unsupported(menu, "the firmware's own menu is on its console (Esc)")


def _firmware(conversion: Conversion, os_element: Element) -> None:
    loader, nvram, outcomes = os_element.child("loader"), os_element.child("nvram"), conversion.outcomes
    wants_uefi = os_element.get("firmware") == "efi" or loader.get("type") == "pflash"
    if wants_uefi:
        outcomes.same(os_element.part("firmware"), "firmware is UEFI")
    elif conversion.encrypted and not loader.text:
        about = os_element.part("firmware") or Part(os_element)
        outcomes.note(about, "an encrypted guest needs UEFI firmware: chosen from the host's firmware descriptors")
    elif not loader.text:
        about = os_element.part("firmware") or Part(os_element)
        outcomes.unsupported(about, "the guest boots through BIOS, sevlaunch starts UEFI: will its disk boot so?")
    _secure_boot(conversion, os_element, loader)
    if loader.get("format") in _FORMATS:
        outcomes.same(loader.part("format"), "firmware is opened as what its magic says")
    stateless = loader.get("stateless") == "yes"
    if not loader.text:
        _chosen(conversion, loader, nvram, stateless)
    elif stateless or loader.get("type") != "pflash" or (conversion.snp and not nvram):
        _image(conversion, loader, nvram)
    else:
        _pflash(conversion, loader, nvram)


def _secure_boot(conversion: Conversion, os_element: Element, loader: Element) -> None:
    """The features that libvirt looks for in descriptors: those of secure boot, where there is a choice."""
    outcomes = conversion.outcomes
    features = {feature.get("name"): feature for feature in os_element.child("firmware").all("feature")}
    wanted = {name for name, feature in features.items() if feature.get("enabled") == "yes"}
    without_keys = "secure-boot" in wanted and "enrolled-keys" in features and "enrolled-keys" not in wanted
    possible = not loader.text and not without_keys and (not conversion.encrypted or conversion.plain_sev)
    asked = [features[name].part("enabled") for name in ("secure-boot", "enrolled-keys") if name in wanted]
    if loader.get("secure") == "yes":
        asked.append(loader.part("secure"))
    for part in asked:
        if possible:
            outcomes.carry(("firmware", "secure_boot"), True, part)
        elif loader.text:
            outcomes.same(part, "the firmware that is named has it, and its descriptor tells whether it needs SMM")
        elif without_keys:
            outcomes.unsupported(part, "firmware.secure_boot has its keys enrolled; name another firmware")
        else:
            outcomes.unsupported(part, "secure boot needs SMM, which SEV-ES and SNP guests can't have")
    for feature in features.values():
        outcomes.same(feature.part("name"), "see firmware.secure_boot")
        if feature.get("enabled") != "yes":
            outcomes.same(feature.part("enabled"), "firmware: auto passes over what was not asked for")
    outcomes.same(loader.part("secure") if loader.get("secure") == "no" else None, "firmware: auto needs no SMM")


def _chosen(conversion: Conversion, loader: Element, nvram: Element, stateless: bool) -> None:
    """Firmware that libvirt would choose by the host's descriptors: sevlaunch does, too."""
    outcomes = conversion.outcomes
    for name in ("type", "readonly"):
        outcomes.same(loader.part(name), "firmware: auto")
    if not stateless:
        outcomes.same(loader.part("stateless"), "firmware: auto")
    elif conversion.encrypted:
        outcomes.same(loader.part("stateless"), "firmware: auto takes a stateless image where SEV has use for one")
    else:
        outcomes.unsupported(loader.part("stateless"), "firmware: auto gives an ordinary guest a variable store")
    outcomes.same(nvram.part("template"), "stands in the firmware's descriptor")
    outcomes.unsupported(nvram, "with firmware: auto the variables start anew; name firmware.code to keep this file")


def _image(conversion: Conversion, loader: Element, nvram: Element) -> None:
    outcomes = conversion.outcomes
    if loader.get("type") == "pflash":
        reason = "a stateless image goes through -bios rather than on pflash: SNP needs that, and it is measured alike"
        outcomes.correct(("firmware", "image"), loader.text, loader, reason)
    else:
        outcomes.carry(("firmware", "image"), loader.text, loader)
    for name in ("type", "readonly", "stateless"):
        outcomes.same(loader.part(name), "see firmware.image")
    outcomes.unsupported(nvram, "a stateless image keeps no variables")


def _pflash(conversion: Conversion, loader: Element, nvram: Element) -> None:
    outcomes = conversion.outcomes
    outcomes.carry(("firmware", "code"), loader.text, loader, loader.part("type"))
    if loader.get("readonly") == "no":
        outcomes.note(loader.part("readonly"), "firmware code is always read-only")
    else:
        outcomes.same(loader.part("readonly"), "firmware code is always read-only")
    outcomes.same(loader.part("stateless"), "see firmware.code")
    template = nvram.get("template")
    if template:
        outcomes.carry(("firmware", "vars"), template, nvram.part("template"))
    for name in ("format", "templateFormat"):
        if nvram.get(name) in _FORMATS:
            outcomes.same(nvram.part(name), "firmware is opened as what its magic says")
    source = nvram.child("source")
    if nvram.text:
        outcomes.carry(("firmware", "nvram"), nvram.text, nvram)
    elif nvram.get("type") == "file" and source.get("file"):
        outcomes.carry(("firmware", "nvram"), source.get("file"), source.part("file"), nvram.part("type"))
