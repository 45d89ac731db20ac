"""What GRUB would start by default, out of grub.cfg as grub-mkconfig writes it: no script is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from itertools import pairwise

from msgspec import Struct

from sevlaunch.contents.filesystem import FileSystem

# Where distributions have it, in a root file system and in one that is mounted at /boot.
FOLDERS = ("/boot/grub", "/boot/grub2", "/grub", "/grub2")
_CONFIG, _ENVIRONMENT = "grub.cfg", "grubenv"
_MOST_CONFIG_BYTES = 1 << 20
_ENVIRONMENT_HEAD = "# GRUB Environment Block"
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_LINUX, _INITRD = ("linux", "linuxefi", "linux16"), ("initrd", "initrdefi", "initrd16")
# The device that GRUB reads from stands in front of a path, where one does.
_DEVICE = re.compile(r"^\([^)]*\)")


class _Item(Struct):
    """A menu entry, or with ``inside`` a menu."""

    title: str
    id: str
    inside: list[_Item] | None = None
    linux: list[str] = []
    initrd: list[str] = []


class GrubEntry(Struct, frozen=True):
    """The entry that is started. ``config``: where it stands."""

    config: str
    title: str
    kernel: str
    initrds: tuple[str, ...]
    cmdline: str


def grub_entry(system: FileSystem) -> GrubEntry | None:
    """What a file system's GRUB would start; None where it has no grub.cfg.

    :raise ValueError: when its default is not among its entries, or starts no Linux.
    """
    for folder in FOLDERS:
        path = f"{folder}/{_CONFIG}"
        content = system.read(path, _MOST_CONFIG_BYTES)
        if content is not None:
            return _default(path, content.decode(errors="replace"), environment(system))
    return None


def environment(system: FileSystem) -> dict[str, str]:
    """The variables that GRUB keeps in its environment block."""
    for folder in FOLDERS:
        content = system.read(f"{folder}/{_ENVIRONMENT}", _MOST_CONFIG_BYTES)
        text = (content or b"").decode(errors="replace")
        if text.startswith(_ENVIRONMENT_HEAD):
            lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
            return {name: value for name, separator, value in lines if separator}
    return {}


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``text`` with GRUB's variables replaced; one that is not known is empty, as it is to GRUB."""
    if "$" not in text:
        return text
    return " ".join(_VARIABLE.sub(lambda found: variables.get(found[1], ""), text).split())


def _default(path: str, text: str, kept: Mapping[str, str]) -> GrubEntry | None:
    items, variables, default = _parse(text, kept)
    chosen: _Item | None = None
    level = items
    for step in default.split(">"):
        chosen = _pick(level, step)
        level = (chosen.inside or []) if chosen else []
    # A menu that is the default starts its first entry.
    while chosen and chosen.inside is not None:
        chosen = chosen.inside[0] if chosen.inside else None
    if chosen is None:
        raise ValueError(f"{path} has no entry {default!r}, which is its default")
    if not chosen.linux:
        raise ValueError(f"the default of {path}, {chosen.title!r}, starts no Linux")
    words = [expand(word, variables) for word in chosen.linux]
    return GrubEntry(
        config=path,
        title=chosen.title,
        kernel=_DEVICE.sub("", words[0]),
        initrds=tuple(_DEVICE.sub("", expand(word, variables)) for word in chosen.initrd),
        cmdline=" ".join(word for word in words[1:] if word),
    )


def _pick(items: list[_Item], wanted: str) -> _Item | None:
    if wanted.isdigit() and len(wanted) < 6:
        return items[int(wanted)] if int(wanted) < len(items) else None
    return next((one for one in items if wanted in (one.id, one.title)), None)


def _parse(text: str, kept: Mapping[str, str]) -> tuple[list[_Item], dict[str, str], str]:
    """The menu, the variables that are set, and the default."""
    items: list[_Item] = []
    # Where what is read goes, by the braces that are open; None: into nothing of a menu.
    open_items: list[_Item | None] = []
    variables = dict(kept)
    default = kept.get("next_entry") or "0"
    for line in text.replace("\\\n", " ").splitlines():
        words = _words(line)
        if not words:
            continue
        command = words[0]
        if command in ("menuentry", "submenu") and words[-1] == "{" and len(words) > 2:
            item = _Item(expand(words[1], variables), _id_of(words), [] if command == "submenu" else None)
            above = next((one for one in reversed(open_items) if one is not None), None)
            (items if above is None or above.inside is None else above.inside).append(item)
            open_items.append(item)
        elif words[-1] == "{":
            open_items.append(None)
        elif command == "}":
            del open_items[-1:]
        elif command == "set" and len(words) == 2 and "=" in words[1]:
            name, _, value = words[1].partition("=")
            if name == "default" and not kept.get("next_entry") and "next_entry" not in value:
                default = expand(value, variables) or default
            elif not open_items:
                variables[name] = expand(value, variables)
        elif open_items and (inner := open_items[-1]) is not None and len(words) > 1:
            if command in _LINUX:
                inner.linux = words[1:]
            elif command in _INITRD:
                inner.initrd = words[1:]
    return items, variables, default


def _id_of(words: list[str]) -> str:
    marks = ("$menuentry_id_option", "--id")
    return next((after for before, after in pairwise(words) if before in marks), "")


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        # A quote that goes on in the next line is in a script, not in an entry.
        return []
