"""What a guest's networks need of this machine: interfaces, their helper, descriptors that an embedder gives."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from sevlaunch.errors import Problem
from sevlaunch.host.interfaces import find_interface, tap_of
from sevlaunch.plan.needs import Descriptor, NeededInterface, NeededProgram


def program_problem(needed: NeededProgram) -> Problem | None:
    """What keeps a program of the launcher's from doing its work."""
    found = next(filter(None, map(shutil.which, (needed.program, *needed.fallbacks))), None)
    if found is None:
        return Problem(f"program {Path(needed.program).name}: missing", hint=needed.remedy)
    if needed.gains_rights and not _has_rights(found):
        hint = f"as root: chmod u+s {found}, or setcap cap_net_admin+ep {found}"
        return Problem(f"program {found}: has no more rights than this user", hint=hint)
    return None


def descriptor_problem(needed: Descriptor) -> Problem | None:
    """Whether a descriptor that this process should have is open on a tap interface."""
    if needed.kind != "given" or tap_of(needed.number) is not None:
        return None
    hint = "open it before, as the same number, in the program that starts the guest"
    return Problem(f"descriptor {needed.number}: is no open tap interface", hint=hint)


def interface_problem(needed: NeededInterface) -> Problem | None:
    """What is wrong with an interface first of all: the next look may find more."""
    what, name = f"{needed.kind} interface {needed.name}", needed.name
    found = find_interface(name)
    if found is None:
        return Problem(f"{what}: missing", hint=needed.remedy)
    if not found.kind:
        return None
    if found.kind != needed.kind:
        other = f"is a {found.kind} interface" if found.kind != "other" else "is an interface of another kind"
        return Problem(f"{what}: {other}", hint=f"name another one, or make it: {needed.remedy}")
    if needed.kind == "tap" and found.multi_queue != (needed.queues > 1):
        made = "several queues" if found.multi_queue else "one queue"
        more = "set queues to more than 1, or " if found.multi_queue else ""
        hint = f"{more}make it anew: ip link del {name} && {needed.remedy}"
        return Problem(f"{what}: was made with {made}, and the profile has queues: {needed.queues}", hint=hint)
    if needed.mac is not None and found.mac != needed.mac:
        hint = f"ip link set {name} address {needed.mac}, or set mac in networks"
        return Problem(f"{what}: lets packets to {found.mac} through, and the guest has {needed.mac}", hint=hint)
    if needed.mtu is not None and found.mtu < needed.mtu:
        hint = f"ip link set {name} mtu {needed.mtu}"
        return Problem(f"{what}: carries {found.mtu} bytes, and the guest's mtu is {needed.mtu}", hint=hint)
    return _device_problem(what, f"/dev/tap{found.index}") if needed.opened else None


def _device_problem(what: str, device: str) -> Problem | None:
    if not Path(device).exists():
        return Problem(f"{what}: its device {device} is missing", hint="udev makes it, or mknod: see /sys/class/net")
    if os.access(device, os.R_OK | os.W_OK):
        return None
    return Problem(f"{what}: its device {device} can't be opened by this user", hint=f"setfacl -m u:$USER:rw {device}")


def _has_rights(program: str) -> bool:
    """Whether a program that this user starts may do what root may: execve(2), capabilities(7)."""
    if os.geteuid() == 0:
        return True
    status = Path(program).stat()
    return bool(status.st_mode & stat.S_ISUID and status.st_uid == 0) or "security.capability" in os.listxattr(program)
