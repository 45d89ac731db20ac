"""This machine -> Host."""

from __future__ import annotations

import grp
import os
import platform
import pwd
import resource
import stat
from pathlib import Path

from sevlaunch.errors import HostError
from sevlaunch.host import cpuid
from sevlaunch.host.firmware import folders, read_descriptors
from sevlaunch.host.folders import runtime_folder, state_folder
from sevlaunch.host.model import (
    CpuFacts,
    Device,
    EncryptionLeaf,
    Folders,
    Host,
    KvmFacts,
    MemoryFacts,
)
from sevlaunch.host.qemu import find_binary, qemu_facts

# capability numbers: include/uapi/linux/capability.h
_CAP_IPC_LOCK = 14
_CAP_SYS_RESOURCE = 24

_HUGE_PAGE_FOLDERS = {"2M": "hugepages-2048kB", "1G": "hugepages-1048576kB"}


def probe_host(qemu_binary: str = "auto", *, runtime: Path | None = None, state: Path | None = None) -> Host:
    """What this machine offers. A QEMU that is missing is noted, not raised: a plan needs it, a look at the host not.

    :param qemu_binary: the QEMU to ask, or ``auto``.
    :param runtime: the folder of running guests instead of the user's own.
    :param state: the folder of what outlives them instead of the user's own.
    """
    qemu, qemu_problem = None, ""
    try:
        qemu = qemu_facts(find_binary(qemu_binary))
    except HostError as error:
        qemu_problem = error.message
    descriptors, firmware_problems = read_descriptors(folders())
    machine = platform.uname()
    return Host(
        schema=1,
        hostname=machine.node,
        kernel=machine.release,
        architecture=machine.machine,
        user=_user_name(os.geteuid()),
        cpu=_cpu(),
        kvm=_kvm(),
        qemu=qemu,
        qemu_problem=qemu_problem,
        firmware=descriptors,
        firmware_problems=firmware_problems,
        memory=_memory(),
        folders=Folders(runtime=str(runtime or runtime_folder()), state=str(state or state_folder())),
    )


def _cpu() -> CpuFacts:
    try:
        read, read_by = cpuid.reader()
    except OSError as error:
        return CpuFacts(read_by=f"not read: {error}", count=len(os.sched_getaffinity(0)))
    base = read(0, 0)
    vendor = b"".join(number.to_bytes(4, "little") for number in (base.ebx, base.edx, base.ecx)).decode(
        "ascii", "replace"
    )
    signature = read(1, 0).eax
    family, model = signature >> 8 & 0xF, signature >> 4 & 0xF
    if family in (0x6, 0xF):
        model |= (signature >> 16 & 0xF) << 4
    if family == 0xF:
        family += signature >> 20 & 0xFF
    highest = read(0x80000000, 0).eax
    name = ""
    if highest >= 0x80000004:
        leaves = [number for leaf in range(0x80000002, 0x80000005) for number in read(leaf, 0)]
        name = (
            b"".join(number.to_bytes(4, "little") for number in leaves).rstrip(b"\0").decode("ascii", "replace").strip()
        )
    encryption = None
    if highest >= cpuid.ENCRYPTION_LEAF:
        registers = read(cpuid.ENCRYPTION_LEAF, 0)
        encryption = EncryptionLeaf(**registers._asdict()) if any(registers) else None
    return CpuFacts(
        vendor=vendor,
        name=name,
        family=family,
        model=model,
        stepping=signature & 0xF,
        count=len(os.sched_getaffinity(0)),
        read_by=read_by,
        instruction_cbitpos=read(cpuid.ENCRYPTION_LEAF, 0).ebx & 0x3F,
        encryption=encryption,
    )


def _kvm() -> KvmFacts:
    sysfs = Path("/sys/module")
    holders = (
        sorted(path.name for path in (sysfs / "kvm/holders").glob("*")) if (sysfs / "kvm/holders").is_dir() else []
    )
    # With KVM built into the kernel there are no holders, only the modules' parameters.
    modules = holders or sorted(path.name for path in sysfs.glob("kvm_*"))
    parameters: dict[str, str] = {}
    for module in ("kvm", *modules):
        for file in sorted((sysfs / module / "parameters").glob("*")):
            try:
                parameters[f"{module}.{file.name}"] = file.read_text().strip()
            except OSError:
                parameters[f"{module}.{file.name}"] = "(not readable)"
    return KvmFacts(
        module=modules[0] if modules else "",
        parameters=parameters,
        device=_device("/dev/kvm"),
        sev_device=_device("/dev/sev"),
    )


def _device(path: str) -> Device:
    try:
        status = Path(path).stat()
    except OSError as error:
        return Device(path=path, exists=False, error=error.strerror or str(error))
    openable, problem = True, ""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        openable, problem = False, error.strerror or str(error)
    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        group = str(status.st_gid)
    return Device(
        path=path,
        exists=True,
        mode=f"{stat.S_IMODE(status.st_mode):04o}",
        owner=_user_name(status.st_uid),
        group=group,
        openable=openable,
        error=problem,
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _memory() -> MemoryFacts:
    sizes: dict[str, int] = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        key, _, rest = line.partition(":")
        sizes[key] = int(rest.split()[0]) * 1024
    pages: dict[str, int] = {}
    for name, folder in _HUGE_PAGE_FOLDERS.items():
        file = Path("/sys/kernel/mm/hugepages") / folder / "free_hugepages"
        if file.exists():
            pages[name] = int(file.read_text())
    soft, hard = (
        None if limit == resource.RLIM_INFINITY else limit for limit in resource.getrlimit(resource.RLIMIT_MEMLOCK)
    )
    return MemoryFacts(
        total=sizes.get("MemTotal", 0),
        available=sizes.get("MemAvailable", 0),
        hugepages_free=pages,
        memlock_soft=soft,
        memlock_hard=hard,
        can_raise_memlock=bool(_effective_capabilities() & (1 << _CAP_IPC_LOCK | 1 << _CAP_SYS_RESOURCE)),
    )


def _effective_capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0
