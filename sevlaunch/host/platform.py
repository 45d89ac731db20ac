"""Around KVM and the secure processor: what only `sevlaunch doctor` looks at. Reading changes nothing anywhere."""

from __future__ import annotations

import os
import re
import struct
from contextlib import suppress

from sevlaunch.host.devices import device_facts
from sevlaunch.host.facts import AsidPool, PlatformFacts, Setting, SevStatus, SnpStatus
from sevlaunch.host.system import System

# linux/psp-sev.h: commands of SEV_ISSUE_CMD, and their answers (packed).
_SEV_PLATFORM_STATUS = 1
_SNP_PLATFORM_STATUS = 9
# api_major, api_minor, state, flags, build, guest_count.
_SEV_STATUS = struct.Struct("<BBBIBI")
_STATUS_ES = 0x100
# api_major, api_minor, state, is_rmp_initialized in bit 0, build_id, mask_chip_id and others, guest_count, TCBs.
_SNP_STATUS = struct.Struct("<BBBBIIIQQ")

# linux/kvm.h
_KVM_GET_API_VERSION = 0xAE00
_KVM_CHECK_EXTENSION = 0xAE03
_KVM_CAP_VM_TYPES = 235

# AMD 24593 (APM volume 2), section 7.10 and 15.36.1.
_MSR_SYSCFG = 0xC0010010

_DEVICES = ("/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock")
_LOG_ABOUT = re.compile(r"\bSEV\b|SEV-|\bccp\b|kvm_amd|\bSVM\b|\bRMP\b|AMD-Vi|\bIOMMU\b|\bpsp\b", re.IGNORECASE)
_LOG_LINES = 80
_PARAMETERS = re.compile(r"(kvm[_-](amd|intel)\.|mem_encrypt=|(amd_|intel_)?iommu[.=]|ccp\.|nosev|sev=)")
_OPTIONS = re.compile(r"\s*(options|blacklist|install)\s+(kvm[_-]amd|kvm|ccp)\b")


def platform_facts(system: System) -> PlatformFacts:
    """All of it, as far as this user may look."""
    sev, sev_problem = _sev_status(system)
    snp, snp_problem = _snp_status(system)
    log, log_problem = _kernel_log(system)
    syscfg, syscfg_problem = _syscfg(system)
    api, vm_types = _kvm(system)
    tables = system.names("/sys/firmware/acpi/tables")
    return PlatformFacts(
        sev=sev,
        sev_problem=sev_problem,
        snp=snp,
        snp_problem=snp_problem,
        kvm_api=api,
        kvm_vm_types=vm_types,
        asids=_asids(system),
        iommu_table=next((name for name in ("IVRS", "DMAR") if name in tables), ""),
        iommu_groups=len(system.names("/sys/kernel/iommu_groups")),
        kernel_log=log,
        kernel_log_problem=log_problem,
        settings=_settings(system),
        syscfg=syscfg,
        syscfg_problem=syscfg_problem,
        container=_container(system),
        seccomp_actions=(system.text("/proc/sys/kernel/seccomp/actions_avail") or "").split(),
        devices=[device_facts(system, path) for path in _DEVICES],
    )


def _sev_status(system: System) -> tuple[SevStatus | None, str]:
    try:
        answer = system.sev_command(system.path("/dev/sev"), _SEV_PLATFORM_STATUS, _SEV_STATUS.size)
    except OSError as error:
        return None, error.strerror or str(error)
    major, minor, state, flags, build, guests = _SEV_STATUS.unpack(answer)
    es = bool(flags & _STATUS_ES)
    return SevStatus(api_major=major, api_minor=minor, build=build, state=state, es=es, guests=guests), ""


def _snp_status(system: System) -> tuple[SnpStatus | None, str]:
    try:
        answer = system.sev_command(system.path("/dev/sev"), _SNP_PLATFORM_STATUS, _SNP_STATUS.size)
    except OSError as error:
        return None, error.strerror or str(error)
    major, minor, state, rmp, build, _, guests, current, reported = _SNP_STATUS.unpack(answer)
    status = SnpStatus(
        api_major=major,
        api_minor=minor,
        build=build,
        state=state,
        rmp_initialized=bool(rmp & 1),
        guests=guests,
        current_tcb=current,
        reported_tcb=reported,
    )
    return status, ""


def _kvm(system: System) -> tuple[int | None, int | None]:
    device = system.path("/dev/kvm")
    try:
        api = system.kvm_ioctl(device, _KVM_GET_API_VERSION, 0)
        return api, system.kvm_ioctl(device, _KVM_CHECK_EXTENSION, _KVM_CAP_VM_TYPES) or None
    except OSError:
        # Why /dev/kvm can't be used is told by the facts about the device.
        return None, None


def _asids(system: System) -> dict[str, AsidPool]:
    """kernel's Documentation/admin-guide/cgroup-v2.rst, "Misc": the capacity stands in the root cgroup."""
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/misc"):
        capacity = _pairs(system.text(f"{top}/misc.capacity"))
        if capacity:
            used = _pairs(system.text(f"{top}/misc.current"))
            if not used:
                # Before Linux 6.10 the root cgroup does not tell the sum.
                children = [_pairs(system.text(f"{top}/{name}/misc.current")) for name in system.names(top)]
                used = {kind: sum(child.get(kind, 0) for child in children) for kind in capacity}
            return {
                kind: AsidPool(capacity=count, used=used.get(kind, 0))
                for kind, count in capacity.items()
                if kind in ("sev", "sev_es")
            }
    return {}


def _pairs(text: str | None) -> dict[str, int]:
    words = [line.split() for line in (text or "").splitlines()]
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}


def _kernel_log(system: System) -> tuple[list[str] | None, str]:
    """kernel's Documentation/ABI/testing/dev-kmsg: a record is "priority,sequence,time,flags;text"."""
    try:
        fd = os.open(system.path("/dev/kmsg"), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        return None, error.strerror or str(error)
    records: list[bytes] = []
    try:
        while True:
            try:
                record = os.read(fd, 8192)
            except BrokenPipeError:
                # What we were about to read has been overwritten: go on with what is there.
                continue
            if not record:
                break
            records.append(record)
    except BlockingIOError:
        pass
    except OSError as error:
        return None, error.strerror or str(error)
    finally:
        os.close(fd)
    lines = b"".join(records).decode("utf-8", "replace").splitlines()
    texts = [line.partition(";")[2] for line in lines if ";" in line and not line.startswith(" ")]
    return [text for text in texts if _LOG_ABOUT.search(text) and "ommand line:" not in text][-_LOG_LINES:], ""


def _settings(system: System) -> list[Setting]:
    found = [
        Setting(where="the kernel's command line", text=word)
        for word in (system.text("/proc/cmdline") or "").split()
        if _PARAMETERS.match(word)
    ]
    for folder in ("/usr/lib/modprobe.d", "/lib/modprobe.d", "/etc/modprobe.d"):
        for name in system.names(folder):
            if name.endswith(".conf") and not (folder == "/lib/modprobe.d" and system.path("/lib").is_symlink()):
                found += [
                    Setting(where=f"{folder}/{name}", text=" ".join(line.split()))
                    for line in (system.text(f"{folder}/{name}") or "").splitlines()
                    if _OPTIONS.match(line)
                ]
    return found


def _syscfg(system: System) -> tuple[int | None, str]:
    try:
        fd = os.open(system.path("/dev/cpu/0/msr"), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return None, error.strerror or str(error)
    try:
        content = os.pread(fd, 8, _MSR_SYSCFG)
    except OSError as error:
        return None, error.strerror or str(error)
    finally:
        os.close(fd)
    return (int.from_bytes(content, "little"), "") if len(content) == 8 else (None, "the MSR is not there")


def _container(system: System) -> str:
    named = system.text("/run/systemd/container")
    if named:
        return named
    for file, kind in (("/run/.containerenv", "podman"), ("/.dockerenv", "docker")):
        with suppress(OSError):
            if system.path(file).exists():
                return kind
    return ""
