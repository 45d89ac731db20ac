"""Watchdog, panic device, SMBIOS tables and files of fw_cfg."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element, Part

# qapi/run-state.json, WatchdogAction; libvirt's "dump" would need a core dump.
_ACTIONS = ("reset", "shutdown", "poweroff", "pause", "none", "inject-nmi")
# sysinfo's blocks -> the tables of smbios; baseBoard stands for the first one of those.
_TABLES = {"bios": "bios", "system": "system", "baseBoard": "board", "chassis": "chassis"}
_KEYS = {
    "bios": ("vendor", "version", "date"),
    "system": ("manufacturer", "product", "version", "serial", "sku", "family"),
    "board": ("manufacturer", "product", "version", "serial", "asset", "location"),
    "chassis": ("manufacturer", "version", "serial", "asset", "sku"),
}
_MOST_CHARACTERS = 255


def import_board(conversion: Conversion) -> None:
    """watchdog, panic, and sysinfo of both types."""
    _watchdogs(conversion)
    _panic(conversion)
    for sysinfo in conversion.domain.all("sysinfo"):
        if sysinfo.get("type") == "smbios":
            _smbios(conversion, sysinfo)
        elif sysinfo.get("type") == "fwcfg":
            _fw_cfg(conversion, sysinfo)


def _watchdogs(conversion: Conversion) -> None:
    outcomes = conversion.outcomes
    for watchdog in conversion.devices.all("watchdog"):
        model, action = watchdog.get("model"), watchdog.get("action") or "reset"
        about = watchdog.part("model") or Part(watchdog)
        if ("watchdog", "model") in outcomes.values:
            outcomes.unsupported(watchdog, "a guest of sevlaunch has one watchdog")
        elif action not in _ACTIONS or model not in ("itco", "i6300esb"):
            outcomes.unsupported(watchdog, f"no {model} watchdog with action {action}")
        else:
            outcomes.carry(("watchdog", "model"), model, about)
            outcomes.carry(("watchdog", "action"), action, watchdog.part("action") or about)


def _panic(conversion: Conversion) -> None:
    for panic in conversion.devices.all("panic"):
        if panic.get("model") in (None, "isa", "pvpanic"):
            conversion.outcomes.carry(("panic",), True, panic.part("model") or Part(panic))
        elif panic.get("model") == "hyperv":
            conversion.cpu_feature(panic.part("model") or Part(panic), "hv-crash=on")


def _smbios(conversion: Conversion, sysinfo: Element) -> None:
    outcomes = conversion.outcomes
    mode = conversion.domain.child("os").child("smbios")
    if mode.get("mode") != "sysinfo":
        outcomes.drop(sysinfo, "os/smbios does not ask for it")
        return
    outcomes.same(mode.part("mode"), "see smbios")
    outcomes.same(sysinfo.part("type"), "see smbios")
    for name, table in _TABLES.items():
        for index, block in enumerate(sysinfo.all(name)):
            for entry in block.all("entry"):
                _entry(conversion, table, entry, index)
    for entry in sysinfo.child("oemStrings").all("entry"):
        if _fits(entry.text):
            outcomes.carry(conversion.next("smbios", "oem_strings"), entry.text, entry)


def _entry(conversion: Conversion, table: str, entry: Element, index: int) -> None:
    key = entry.get("name") or ""
    if (table, key) == ("system", "uuid"):
        conversion.outcomes.same(entry, "see uuid")
        conversion.outcomes.same(entry.part("name"), "see uuid")
    elif index == 0 and key in _KEYS[table] and _fits(entry.text):
        conversion.outcomes.carry(("smbios", table, key), entry.text, entry, entry.part("name"))


def _fw_cfg(conversion: Conversion, sysinfo: Element) -> None:
    conversion.outcomes.same(sysinfo.part("type"), "see fw_cfg")
    for entry in sysinfo.all("entry"):
        name = entry.get("name") or ""
        kind, content = ("file", entry.get("file")) if entry.get("file") else ("text", entry.text)
        if name.startswith("opt/") and content:
            key = conversion.next("fw_cfg")
            conversion.outcomes.carry((*key, "name"), name, entry.part("name"))
            conversion.outcomes.carry((*key, kind), content, entry.part("file") or Part(entry))


def _fits(text: str) -> bool:
    return 0 < len(text) <= _MOST_CHARACTERS and text.isprintable()
