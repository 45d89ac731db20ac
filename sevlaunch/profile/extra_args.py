"""What ``qemu.extra_args`` may hold: what sevlaunch sets itself, what breaks an encrypted guest, what can't work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sevlaunch.profile.option_values import Remark, value_remarks
from sevlaunch.profile.qemu_options import OPTIONS, QemuOption


class Finding(NamedTuple):
    """What is to be said of the argument at ``position``, from 0; not ``refused``: a warning."""

    position: int
    message: str
    refused: bool = True


def check_extra_args(args: Sequence[str], *, encrypted: bool, accel: str = "auto") -> Iterator[Finding]:
    """What is wrong with ``args``, and what should be known of them, in their order.

    :param accel: as in the profile.
    """
    for index, name, value in _options(args):
        option = OPTIONS.get(name) if name is not None else None
        if name is None:
            message = f"{args[index]!r} stands after no option, and becomes a disk"
            yield Finding(index, message, refused=False)
        elif option is None:
            yield Finding(index, _unknown(args[index], name))
            for finding in _joined_findings(name, encrypted=encrypted, accel=accel):
                yield Finding(index, *finding[1:])
        else:
            for remark in _option_remarks(name, option, encrypted=encrypted):
                yield Finding(index, *remark)
            if option.takes_value and value is None:
                yield Finding(
                    index, f"-{name} has no value behind it, and would take sevlaunch's own next option for it"
                )
            elif value is not None and not option.refused and not (encrypted and option.encrypted):
                if _known_option(value):
                    message = f"{value} is the value of -{name} here, and no option: does -{name} lack its value?"
                    yield Finding(index + 1, message)
                for remark in value_remarks(name, value, encrypted=encrypted, accel=accel):
                    yield Finding(index + 1, *remark)


def check_release(args: Sequence[str], release: tuple[int, int]) -> Iterator[Finding]:
    """The options that the QEMU of this major and minor version does not have."""
    for index, name, _ in _options(args):
        option = OPTIONS.get(name) if name else None
        if option and option.gone and release >= option.gone:
            yield Finding(index, f"-{name} is gone since QEMU {_version(option.gone)}")
        elif option and option.since and release < option.since:
            yield Finding(index, f"-{name} came with QEMU {_version(option.since)}")


def options_of(args: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """The index, name and value of each option; for an argument that is none, an image of a disk, the name is ''."""
    for index, name, value in _options(args):
        yield (index, "", args[index]) if name is None else (index, name, value)


def _options(args: Sequence[str]) -> Iterator[tuple[int, str | None, str | None]]:
    """As QEMU's lookup_opt() in system/vl.c; where an option is not known, its value is guessed by its dash."""
    index = 0
    while index < len(args):
        argument = args[index]
        # "-option" and "--option" are the same; there are no abbreviations.
        name = re.sub("^--?", "", argument) if argument.startswith("-") else None
        option = OPTIONS.get(name) if name is not None else None
        following = args[index + 1] if index + 1 < len(args) else None
        if option is not None:
            value = following if option.takes_value else None
        else:
            value = following if name is not None and following is not None and not following.startswith("-") else None
        yield index, name, value
        index += 1 if value is None else 2


def _option_remarks(name: str, option: QemuOption, *, encrypted: bool) -> Iterator[Remark]:
    if option.refused:
        yield Remark(f"-{name} {option.refused}")
    elif encrypted and option.encrypted:
        yield Remark(f"-{name} {option.encrypted}")
    elif option.warned or (encrypted and option.warned_encrypted):
        yield Remark(f"-{name} {option.warned or option.warned_encrypted}", refused=False)


def _unknown(argument: str, name: str) -> str:
    joined = _joined(name)
    if joined:
        return f'this is one argument, and QEMU wants two: write "-{joined[0]}", "{joined[1]}"'
    return f"{argument!r} is no option of QEMU 7.2 to 11.1, and what it does is not known: use the keys of the profile"


def _joined(name: str) -> tuple[str, str] | None:
    """Option and value where they stand in one argument."""
    found = re.fullmatch(r"([A-Za-z_-]+)[\s=](.*)", name, re.DOTALL)
    return (found[1], found[2].strip()) if found and found[1] in OPTIONS else None


def _joined_findings(name: str, *, encrypted: bool, accel: str) -> Iterator[Finding]:
    """What is wrong with option and value once they are two arguments."""
    joined = _joined(name)
    if joined and OPTIONS[joined[0]].takes_value:
        yield from check_extra_args([f"-{joined[0]}", joined[1]], encrypted=encrypted, accel=accel)


def _known_option(value: str) -> bool:
    return value.startswith("-") and re.sub("^--?", "", value) in OPTIONS


def _version(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))
