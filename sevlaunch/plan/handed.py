"""Files that have no name when QEMU opens them: it is handed them open, and they are gone with it."""

from __future__ import annotations

from sevlaunch.plan.option import Option, Parameter, Reason


def handing(descriptor: int, reason: Reason) -> Option:
    """How QEMU takes an open file over: monitor/fds.c, a set of descriptors with this one in it."""
    return Option("-add-fd", tuple(Parameter(key, str(descriptor), reason) for key in ("fd", "set")))


def handed_name(descriptor: int) -> str:
    """What QEMU opens such a file by."""
    return f"/dev/fdset/{descriptor}"
