"""Device files: permissions, access control list, and whether this user can open them."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from contextlib import suppress
from pathlib import Path

from sevlaunch.host.accounts import ACL_GROUP, ACL_USER, acl_entries
from sevlaunch.host.facts import Device, KvmFacts
from sevlaunch.host.system import System

# Of the kernel's arch/x86/include/uapi/asm/kvm.h.
_KVM_X86_GRP_SEV = 1
_KVM_X86_SNP_POLICY_BITS = 1
# Of linux/kvm.h.
_KVM_CHECK_EXTENSION = 0xAE03
_KVM_CAP_MAX_VCPUS = 66


def device_facts(system: System, path: str) -> Device:
    """The device file at the absolute ``path``."""
    file = system.path(path)
    try:
        status = file.stat()
    except OSError as error:
        return Device(path=path, exists=False, error=error.strerror or str(error))
    openable, problem = True, ""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        openable, problem = False, error.strerror or str(error)
    return Device(
        path=path,
        exists=True,
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        owner=user_name(status.st_uid),
        group=group_name(status.st_gid),
        acl=_acl(file),
        openable=openable,
        error=problem,
    )


def user_name(uid: int) -> str:
    """The name of a user, or the number where it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group, or the number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _acl(file: Path) -> list[str]:
    try:
        content = os.getxattr(file, "system.posix_acl_access")
    except OSError:
        # Most device files, and file systems, have none.
        return []
    return parse_acl(content)


def parse_acl(content: bytes) -> list[str]:
    """The named users and groups of an access control list as the kernel hands it out, as getfacl(1) writes them."""
    entries = []
    for tag, permissions, number in acl_entries(content):
        letters = "".join(letter if permissions & bit else "-" for letter, bit in (("r", 4), ("w", 2), ("x", 1)))
        if tag == ACL_USER:
            entries.append(f"user:{user_name(number)}:{letters}")
        elif tag == ACL_GROUP:
            entries.append(f"group:{group_name(number)}:{letters}")
    return entries


def kvm_facts(system: System, *, ordinary: bool = False) -> KvmFacts:
    """KVM: its modules, /dev/kvm and, but for an ordinary guest, the modules' parameters and /dev/sev."""
    holders = system.names("/sys/module/kvm/holders")
    # With KVM built into the kernel there are no holders, only the modules' parameters.
    modules = holders or [name for name in system.names("/sys/module") if name.startswith("kvm_")]
    if ordinary:
        module = modules[0] if modules else ""
        return KvmFacts(module=module, most_vcpus=_most_vcpus(system), device=device_facts(system, "/dev/kvm"))
    parameters: dict[str, str] = {}
    for module in ("kvm", *modules):
        folder = f"/sys/module/{module}/parameters"
        for name in system.names(folder):
            text = system.text(f"{folder}/{name}")
            parameters[f"{module}.{name}"] = "(not readable)" if text is None else text
    return KvmFacts(
        module=modules[0] if modules else "",
        parameters=parameters,
        snp_policy_bits=_snp_policy_bits(system) if "kvm_amd" in modules else None,
        most_vcpus=_most_vcpus(system),
        device=device_facts(system, "/dev/kvm"),
        sev_device=device_facts(system, "/dev/sev"),
    )


def _most_vcpus(system: System) -> int | None:
    # Why /dev/kvm can't be opened is told by the facts about the device.
    with suppress(OSError):
        return system.kvm_ioctl(system.path("/dev/kvm"), _KVM_CHECK_EXTENSION, _KVM_CAP_MAX_VCPUS) or None
    return None


def _snp_policy_bits(system: System) -> int | None:
    # Without SNP, KVM says 0. Why /dev/kvm can't be opened is told by the facts about the device.
    with suppress(OSError):
        return system.kvm_attribute(system.path("/dev/kvm"), _KVM_X86_GRP_SEV, _KVM_X86_SNP_POLICY_BITS) or None
    return None
