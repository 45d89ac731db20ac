"""Before QEMU starts: is there, and can be used, all that the guest needs of this machine? What is not, at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.doctor.network import descriptor_problem, interface_problem, program_problem
from sevlaunch.errors import HostError, Problem
from sevlaunch.host import accounts
from sevlaunch.opening import other_kind
from sevlaunch.plan.needs import (
    Companion,
    Descriptor,
    NeededDevice,
    NeededFile,
    NeededInterface,
    NeededProgram,
)
from sevlaunch.plan.plan import Plan
from sevlaunch.remedies import SEV_OVMF

# Whether the user that QEMU runs as has access to a path, with a mode as for os.access.
May = Callable[[str, int], bool]


class Look(Struct, frozen=True):
    """A need, and what was wrong with it on this machine; nothing: it is met."""

    need: NeededDevice | NeededFile | NeededInterface | NeededProgram | Descriptor | Companion
    problem: Problem | None


def check_files(plan: Plan) -> None:
    """Make sure that QEMU will find what the plan needs.

    :raise HostError: with everything that is missing or can't be used.
    """
    problems = [look.problem for look in look_at(plan) if look.problem]
    if problems:
        raise HostError(f"{plan.name} can't be started: files are missing", problems=problems)


def check_root(plan: Plan) -> Plan:
    """See that a root under dm-verity is what its hash tree says, unless somebody has. Takes seconds for a gigabyte.

    :return: the plan, whose start does not look again.
    :raise HostError: when data or tree were changed.
    """
    verity = plan.boot.verity
    if verity is None or verity.checked:
        return plan
    # Few guests have such a root.
    from sevlaunch.host.verity import check_verity

    check_verity(*verity.sources, verity.root_hash.value, names=(verity.data, verity.hashes))
    return with_checked_root(plan)


def with_checked_root(plan: Plan) -> Plan:
    """The plan, whose start does not look at its root."""
    verity = plan.boot.verity
    if verity is None:
        return plan
    return replace(plan, boot=replace(plan.boot, verity=replace(verity, checked=True)))


def look_at(plan: Plan) -> list[Look]:
    """Look at each thing on this machine that the plan needs, with the eyes of the user that QEMU runs as.

    :raise HostError: when there is no such user.
    """
    user = plan.run_as.value if plan.run_as else ""
    return list(_looks(plan, user, partial(accounts.may, account=accounts.find_account(user) if user else None)))


def _looks(plan: Plan, user: str, may: May) -> Iterator[Look]:
    needs = plan.needs
    for file in needs.files:
        problem = _file(file, accounts.may if file.by_launcher else may)
        if problem is None and file.path == plan.firmware.code.value:
            problem = _firmware_image(plan)
        if problem is None and file.image_format:
            problem = _disk_image(file)
        yield Look(file, problem)
    for device in needs.devices:
        # Whether the user who starts the guest can open these is known before a plan is made.
        if user or not device.probed:
            look = _device(device, "", accounts.may) if device.by_launcher else _device(device, user, may)
            yield Look(device, look)
    for companion in needs.companions:
        there = any(shutil.which(program) for program in (companion.program, *companion.fallbacks))
        missing = Problem(f"program {companion.program}: missing", hint=companion.remedy)
        yield Look(companion, None if there else missing)
    for program in needs.programs:
        yield Look(program, program_problem(program))
    for interface in needs.interfaces:
        yield Look(interface, interface_problem(interface))
    for descriptor in needs.descriptors:
        yield Look(descriptor, descriptor_problem(descriptor))


def _device(device: NeededDevice, user: str, may: May) -> Problem | None:
    if not may(device.path, os.F_OK):
        # A probed one that is missing is the host's fault, and told with what the host has instead.
        return None if device.probed else Problem(f"{device.what} {device.path}: missing", hint=device.remedy)
    mode, letters = (os.R_OK | os.W_OK, "rw") if device.write else (os.R_OK, "r")
    if may(device.path, mode):
        return None
    permission = f"setfacl -m u:{user or '$USER'}:{letters} {device.path}"
    return Problem(
        f"{device.what} {device.path}: can't be opened by {user or 'this user'}",
        hint=f"usermod -aG kvm {user}, or: {permission}" if user else permission,
    )


def _file(file: NeededFile, may: May) -> Problem | None:
    if file.template and not may(file.path, os.F_OK):
        return _readable(file.template, f"{file.what} template", file.remedy, may)
    if file.granted and may(file.path, os.F_OK):
        return None
    if file.folder:
        return _usable_folder(file, may)
    return _readable(file.path, file.what, file.remedy, may, write=file.write, instead=file.instead)


def _firmware_image(plan: Plan) -> Problem | None:
    """What QEMU would find missing in the image only after it has been started, or the guest never."""
    if plan.security is None:
        return None
    from sevlaunch.host.ovmf import firmware_image

    path = plan.firmware.code.value
    image = firmware_image(Path(path), path)
    lacking = image.error or image.lacks_for(plan.guest_type, kernel_hashes=plan.security.kernel_hashes.value)
    if not lacking:
        return None
    return Problem(
        f"firmware {path}: can't start a {plan.guest_type} guest: {lacking}",
        hint=SEV_OVMF,
    )


def _disk_image(file: NeededFile) -> Problem | None:
    """A plan for a host that was probed without a look at the images has their formats by name alone."""
    from sevlaunch.host.images import image_facts

    facts = image_facts(file.path)
    if facts is None or facts.format == file.image_format:
        return None
    return Problem(
        f"{file.what} {file.path}: is a {facts.format} image, and QEMU would open it as {file.image_format}",
        hint=f"set its format: {facts.format}; from a program: Host.probe(images=[...]) looks into images",
    )


def _usable_folder(file: NeededFile, may: May) -> Problem | None:
    if not may(file.path, os.F_OK):
        return Problem(f"{file.what} {file.path}: no such folder", hint=file.remedy)
    if not Path(file.path).is_dir():
        return Problem(f"{file.what} {file.path}: is no folder", hint=file.remedy)
    # Whether it is written to is for those in the guest.
    if not may(file.path, os.R_OK | os.X_OK):
        return Problem(f"{file.what} {file.path}: can't be read by this user", hint="change its permissions")
    return None


def _readable(path: str, what: str, remedy: str, may: May, *, write: bool = False, instead: str = "") -> Problem | None:
    if not may(path, os.F_OK):
        return Problem(f"{what} {path}: no such file", hint=remedy)
    # QEMU would wait for ever for what comes out of it.
    if kind := other_kind(Path(path).stat(), but_block_device=True):
        return Problem(f"{what} {path}: is {kind}, and no regular file", hint=remedy)
    if not may(path, os.R_OK | (os.W_OK if write else 0)):
        wanted = "read and written" if write else "read"
        other = f", or {instead}" if instead and may(path, os.R_OK) else ""
        return Problem(f"{what} {path}: can't be {wanted} by this user", hint=f"change its permissions{other}")
    return None
