"""Before QEMU starts: is every file there, and can this user use it? All that is missing, at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from sevlaunch.errors import HostError, Problem
from sevlaunch.host.accounts import acting_as, find_account
from sevlaunch.plan.host_access import device_paths, images, peripheral_devices
from sevlaunch.plan.plan import Plan


def check_files(plan: Plan) -> None:
    """Make sure that QEMU will find what the plan names.

    :raise HostError: with everything that is missing or can't be used.
    """
    with acting_as(find_account(plan.run_as.value) if plan.run_as else None):
        problems = list(_problems(plan))
    if problems:
        raise HostError(f"{plan.name} can't be started: files are missing", problems=problems)


def _problems(plan: Plan) -> Iterator[Problem]:
    yield from _readable(plan.firmware.code.value, "firmware", "install OVMF, or correct firmware in the profile")
    yield from _firmware_image(plan)
    variables = plan.firmware.vars
    if variables and not _may(variables.value, os.F_OK):
        if plan.firmware.vars_template:
            yield from _readable(
                plan.firmware.vars_template, "NVRAM template", "install OVMF, or correct firmware.vars"
            )
        else:
            yield Problem(f"NVRAM {variables.value}: missing", hint="name a template in firmware.vars")
    for file in plan.boot_files:
        # The demo's files are not downloaded but built, by a script that a newcomer may not know of.
        remedy = "run scripts/demo-guest" if "/build/demo/" in file else "correct boot in the profile"
        yield from _readable(file, "boot file", remedy)
    for image in images(plan):
        remedy = "run scripts/demo-guest" if "/build/demo/" in image.path else "correct disks in the profile"
        yield from _readable(image.path, "disk", remedy, write=image.write)
    for device in peripheral_devices(plan):
        if not _may(device.path, os.R_OK | os.W_OK):
            found = "can't be opened by this user" if _may(device.path, os.F_OK) else "missing"
            yield Problem(f"device {device.path}: {found}", hint=device.remedy)
    if plan.run_as:
        # Whether this user can open them is known before a plan is made; here it is the other one who looks.
        for path in device_paths(plan):
            if _may(path, os.F_OK) and not _may(path, os.R_OK | os.W_OK):
                yield Problem(
                    f"device {path}: can't be opened by {plan.run_as.value}",
                    hint=f"usermod -aG kvm {plan.run_as.value}, or: setfacl -m u:{plan.run_as.value}:rw {path}",
                )
    for companion in plan.companions:
        if not any(shutil.which(program) for program in (companion.argv[0], *companion.fallbacks)):
            yield Problem(f"program {companion.argv[0]}: missing", hint=companion.remedy)


def _firmware_image(plan: Plan) -> Iterator[Problem]:
    """What QEMU would find missing in the image only after it has been started, or the guest never."""
    path = Path(plan.firmware.code.value)
    if plan.security is None or not _may(str(path), os.R_OK) or not path.is_file():
        return
    from sevlaunch.host.ovmf import firmware_image

    image = firmware_image(path, str(path))
    lacking = image.error or image.lacks_for(plan.guest_type, kernel_hashes=plan.security.kernel_hashes)
    if lacking:
        yield Problem(
            f"firmware {path}: can't start a {plan.guest_type} guest: {lacking}",
            hint="use an OVMF that is built for it (OVMF.amdsev.fd; Debian, Ubuntu: ovmf-amdsev)",
        )


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _readable(path: str, what: str, remedy: str, *, write: bool = False) -> Iterator[Problem]:
    if not _may(path, os.F_OK):
        yield Problem(f"{what} {path}: no such file", hint=remedy)
    elif Path(path).is_dir():
        yield Problem(f"{what} {path}: is a folder", hint=remedy)
    elif not _may(path, os.R_OK | (os.W_OK if write else 0)):
        wanted = "read and written" if write else "read"
        yield Problem(
            f"{what} {path}: can't be {wanted} by this user",
            hint="change its permissions" + (", or set read_only: true" if write and _may(path, os.R_OK) else ""),
        )
