"""Checks of the kernel: KVM and its parameters, /dev/kvm, the IOMMU and what SNP needs of it."""

from __future__ import annotations

import re
from collections.abc import Callable

from sevlaunch.doctor.tree import ANY, ENCRYPTED, ES, SNP, HostCheck, Judgement, failed, ok, skipped, unknown, warning
from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import Device, PlatformFacts
from sevlaunch.host.model import Host
from sevlaunch.remedies import MODULES, linux_since

_KVM = frozenset(("kvm", "rehearsal")) | ENCRYPTED

# linux/kvm.h: KVM_X86_SEV_VM, KVM_X86_SEV_ES_VM, KVM_X86_SNP_VM, as bits of KVM_CAP_VM_TYPES.
_VM_TYPES = {GuestType.SEV: 2, GuestType.SEV_ES: 3, GuestType.SEV_SNP: 4}

# What the kernel logs when it gives up on SEV or SNP: drivers/crypto/ccp/sev-dev.c, drivers/iommu/amd/init.c,
# arch/x86/virt/svm/sev.c, arch/x86/kvm/svm. Each with what to do.
_COMPLAINTS = (
    (r"RMP table has not been reserved by BIOS", "turn on SNP Memory (RMP Table) Coverage in the BIOS"),
    (r"RMP table does not cover", "set SNP Memory (RMP Table) Coverage in the BIOS to cover all memory"),
    (r"passthrough mode, SNP cannot", "take iommu=pt, iommu.passthrough=1 and amd_iommu=off off the command line"),
    (r"V2 page table mode, SNP cannot", "take amd_iommu=pgtbl_v2 off the kernel's command line"),
    (r"IOMMU SNP feature not enabled", "turn on the IOMMU's SNP support in the BIOS, or update it"),
    (r"RMP initialization failed", "update the BIOS"),
    (r"SEV-SNP: failed to INIT", "update the BIOS and the SEV firmware (linux-firmware, amd/*.sbin)"),
    (r"SEV: failed to INIT", "update the BIOS and the SEV firmware (linux-firmware, amd/*.sbin)"),
    (r"command 0x\w+ timed out", "the secure processor hangs: power-cycle the machine, update the BIOS"),
    (r"SVM disabled \(by BIOS\)", "turn on SVM Mode in the BIOS"),
    (r"SVM not supported", "turn on SVM Mode in the BIOS"),
)


def device_judgement(device: Device, what: str, remedy: str, container: str = "") -> Judgement:
    """Whether this user can open a device file, and what to do if not."""
    if not device.exists:
        inside = f"pass it to the container: --device {device.path}; " if container else ""
        return failed(f"missing, the way to {what}", inside + remedy)
    permissions = f"mode {device.mode}, owner {device.owner}, group {device.group}"
    if device.acl:
        permissions += f", ACL {' '.join(device.acl)}"
    if device.openable:
        return ok(permissions)
    # A group that may not write is of no use to its members.
    group_may = bool(int(device.mode or "0", 8) & 0o060 == 0o060) and device.group != "root"
    join = (
        f"join the group {device.group} (usermod -aG {device.group} $USER, then log in anew), or: " if group_may else ""
    )
    rule = ""
    if not group_may:
        name = device.path.rpartition("/")[2]
        rule = f'; for good: KERNEL=="{name}", GROUP="kvm", MODE="0660" in /etc/udev/rules.d/70-sev.rules'
    return failed(
        f"can't be opened: {device.error} ({permissions})",
        f"{join}setfacl -m u:$USER:rw {device.path}{rule}",
    )


def _container(host: Host) -> str:
    return host.platform.container if host.platform else ""


def _module(host: Host) -> Judgement:
    if host.cpu.vendor and host.cpu.vendor != "AuthenticAMD":
        return skipped("not looked at: kvm_amd is for AMD processors")
    found = host.kvm.module
    if found != "kvm_amd":
        return failed(
            f"wanted the module kvm_amd, found {found or 'no KVM module'}",
            "modprobe kvm_amd; if it refuses, turn on SVM Mode in the BIOS",
        )
    return ok("kvm_amd is loaded")


def _parameter(name: str) -> Callable[[Host], Judgement]:
    def judge(host: Host) -> Judgement:
        value = host.kvm.parameters.get(f"kvm_amd.{name}")
        if host.kvm.enabled(name):
            return ok(f"kvm_amd.{name} is {value}")
        if value is None:
            return failed(
                f"kvm_amd has no parameter {name} in Linux {host.kernel}",
                f"use Linux {linux_since(name)} or newer, with CONFIG_KVM_AMD_SEV",
            )
        flags = host.cpu.kernel_flags
        if flags is not None and name not in flags:
            return failed(
                f"off (kvm_amd.{name} is {value}), for the kernel found it off in the BIOS",
                "fix that first: see the processor above; no module option helps",
            )
        settings = [
            setting
            for setting in (host.platform.settings if host.platform else [])
            if re.search(rf"kvm[_-]amd\b.*\b{name}=(0|N|n|off)\b", setting.text)
        ]
        if settings:
            return failed(
                f"off (kvm_amd.{name} is {value}): '{settings[0].text}' in {settings[0].where}",
                f"change it to {name}=1 there, then: modprobe -r kvm_amd; modprobe kvm_amd",
            )
        return failed(
            f"off (kvm_amd.{name} is {value})",
            f"write 'options kvm_amd {name}=1' into /etc/modprobe.d/kvm-amd.conf and reload the module (modprobe -r "
            f"kvm_amd; modprobe kvm_amd), or start the kernel with kvm_amd.{name}=1",
        )

    return judge


def _kvm_device(host: Host) -> Judgement:
    return device_judgement(
        host.kvm.device,
        "KVM",
        MODULES["/dev/kvm"],
        _container(host),
    )


def _kvm_api(host: Host) -> Judgement:
    if host.platform is None or host.platform.kvm_api is None:
        return unknown("the device was not asked")
    return ok(f"version {host.platform.kvm_api}")


def _vm_type(guest_type: GuestType) -> Callable[[Host], Judgement]:
    def judge(host: Host) -> Judgement:
        types = host.platform.kvm_vm_types if host.platform else None
        if types is None:
            return unknown("this KVM does not tell its types of VM (Linux 6.10 and newer do)")
        if not types >> _VM_TYPES[guest_type] & 1:
            # Older QEMUs, and kernels that only know the old ioctls, start SEV and SEV-ES without it.
            return warning(f"not among KVM's types of VM ({types:#x})", "use a kernel with SEV on in kvm_amd")
        return ok(f"KVM has the type ({types:#x})")

    return judge


def _firmware_code(host: Host) -> Judgement:
    if not host.kvm.runs_firmware:
        return warning(
            f"{host.kvm.module or 'this KVM'} can't run firmware code: an ordinary guest gets TCG, which is slow",
            "use a machine with hardware virtualisation",
        )
    return ok(f"{host.kvm.module} drives the hardware")


def _settings_off(platform: PlatformFacts) -> list[str]:
    bad = re.compile(r"(iommu=(pt|off)|amd_iommu=off|iommu\.passthrough=1|amd_iommu=pgtbl_v2)")
    return [setting.text for setting in platform.settings if bad.fullmatch(setting.text)]


def _iommu(host: Host) -> Judgement:
    platform = host.platform
    if host.cpu.vendor and host.cpu.vendor != "AuthenticAMD":
        return skipped("not looked at: SNP is a feature of AMD processors")
    if platform is None:
        return unknown("not looked at")
    off = _settings_off(platform)
    if off:
        return failed(
            f"the kernel was started with {' '.join(off)}",
            f"take {' '.join(off)} off the kernel's command line (GRUB_CMDLINE_LINUX in /etc/default/grub) and reboot",
        )
    if not platform.iommu_groups:
        if not platform.iommu_table:
            return failed("no IOMMU: no ACPI table IVRS", "turn on the IOMMU in the BIOS: AMD CBS, NBIO Common Options")
        return failed("the kernel does not use it", "start the kernel with amd_iommu=on iommu=nopt")
    return ok(f"{platform.iommu_groups} groups")


def _complaints(host: Host) -> Judgement:
    platform = host.platform
    if platform is None:
        return unknown("not looked at")
    if platform.kernel_log is None:
        return unknown(f"can't be read: {platform.kernel_log_problem}", "look as root: dmesg | grep -iE 'sev|ccp|rmp'")
    for line in platform.kernel_log:
        for pattern, remedy in _COMPLAINTS:
            if re.search(pattern, line):
                return warning(line.strip(), remedy)
    told = [line.strip() for line in platform.kernel_log if re.search(r"SEV.*(API:|enabled \(ASIDs)", line)]
    return ok("; ".join(told) or "no complaint")


_PARAMETERS = HostCheck(
    "kernel.sev",
    "SEV in kvm_amd",
    _parameter("sev"),
    "KVM starts SEV guests only when the parameter is on.",
    ENCRYPTED,
    ENCRYPTED,
    children=(
        HostCheck(
            "kernel.sev_es",
            "SEV-ES in kvm_amd",
            _parameter("sev_es"),
            "KVM starts SEV-ES guests only when the parameter is on; SNP needs it.",
            ES,
            ES,
            children=(
                HostCheck(
                    "kernel.sev_snp",
                    "SEV-SNP in kvm_amd",
                    _parameter("sev_snp"),
                    "KVM starts SNP guests only when the parameter is on.",
                    SNP,
                    SNP,
                ),
            ),
        ),
    ),
)

KERNEL = HostCheck(
    "kernel",
    "kernel",
    _module,
    "SEV guests are run by KVM's module for AMD.",
    ENCRYPTED,
    ENCRYPTED,
    children=(_PARAMETERS,),
)

KVM_DEVICE = HostCheck(
    "kvm",
    "/dev/kvm",
    _kvm_device,
    "The way to KVM. An ordinary guest can do without, slowly.",
    _KVM,
    ANY,
    children=(
        HostCheck("kvm.api", "API", _kvm_api, "Shows that KVM answers.", concerns=_KVM),
        HostCheck(
            "kvm.firmware", "firmware code", _firmware_code, "Guests start in real mode.", concerns=ANY - ENCRYPTED
        ),
        *(
            HostCheck(
                f"kvm.type.{guest_type}",
                f"VM type {guest_type}",
                _vm_type(guest_type),
                "KVM_SEV_INIT2 and SNP ask KVM for a VM of this type.",
                concerns=frozenset((guest_type,)),
            )
            for guest_type in _VM_TYPES
        ),
    ),
)

SNP_HOST = HostCheck(
    "iommu",
    "IOMMU",
    _iommu,
    "SNP needs an IOMMU that is on and translates: devices must not write into a guest's pages.",
    SNP,
    SNP,
)

KERNEL_LOG = HostCheck(
    "log",
    "kernel log",
    _complaints,
    "The kernel says here why it gave up on SEV or SNP.",
    concerns=ENCRYPTED,
    root=True,
)
