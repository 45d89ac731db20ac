"""The failures of encrypted guests that QEMU prints, in its own words, and what to do about each."""

from __future__ import annotations

from sevlaunch.guest.failure import KVM_ALL, LOCK_LIMIT, MEMORY, PERMISSION, Known
from sevlaunch.remedies import MODULES, SEV_OVMF, linux_since, qemu_since

_POLICY = (
    "KVM does not take the guest policy: before Linux "
    f"{linux_since('policies without smt, and with single-socket')} it wants smt and no single-socket, before "
    f"{linux_since('KVM_X86_SNP_POLICY_BITS')} none of the newer bits; migration-agent it takes nowhere"
)
_NO_SNP = (
    f"KVM has no SNP: it needs Linux {linux_since('sev_snp')} or newer, and SNP turned on in BIOS and kvm_amd; see "
    "`sevlaunch doctor`"
)
_NO_SEV = "KVM has no SEV here: see `sevlaunch doctor`"
_CPU_MODEL = (
    "the secure processor refuses what the CPU model says of itself: leave cpu.model at auto or use EPYC-v4, and leave "
    "out of cpu.features what this CPU does not have"
)
_SEV_C = "target/i386/sev.c"

# What says more than the answer of the secure processor that stands beside it. The first match counts.
EXACT = (
    Known(
        r"CPUID validation failed|CPUID entry count \(\d+\) exceeds max",
        _CPU_MODEL,
        "SEV-SNP: CPUID validation failed for function",
        f"{_SEV_C}; NVIDIA/nvtrust 91",
    ),
    Known(
        r"SNP_LAUNCH_START ret=-22 fw_error=(0|-1)\b",
        _POLICY,
        "SNP_LAUNCH_START ret=%d fw_error=%d",
        f"{_SEV_C}; AMDESE/AMDSEV 223, 240",
    ),
    Known(
        r"SNP_LAUNCH_START ret=-25 fw_error=(0|-1)\b",
        f"kernel and QEMU do not mean the same by SNP: use Linux {linux_since('sev_snp')} or newer with QEMU "
        f"{qemu_since('sev-snp-guest')} or newer",
        "SNP_LAUNCH_START ret=%d fw_error=%d",
        f"{_SEV_C}; AMDESE/AMDSEV 216",
    ),
    # A SNP guest's memory is not locked.
    Known(r"SNP_LAUNCH_UPDATE ret=-12\b", MEMORY, "SNP_LAUNCH_UPDATE ret=%d fw_error=%d", _SEV_C),
    # sev_pin_memory() in the kernel's arch/x86/kvm/svm/sev.c: more pages than the limit are ENOMEM.
    Known(
        r"failed to register region .* error 'Cannot allocate memory'|LAUNCH_UPDATE(_VMSA)? ret=-12\b",
        LOCK_LIMIT,
        "%s: failed to register region (%p+%#zx) error '%s'",
        f"{_SEV_C}, sev_ram_block_added",
    ),
    Known(
        r"reset address is zero|no SEV-ES reset|information block/Firmware GUID Table block not found",
        f"the firmware image has no SEV-ES reset vector: {SEV_OVMF}",
        "SEV-ES reset address is zero",
        _SEV_C,
    ),
    Known(
        r"Failed to locate SEV metadata header|Failed to add metadata page",
        f"the firmware image has no SNP metadata that fits: {SEV_OVMF}",
        "Failed to locate SEV metadata header",
        _SEV_C,
    ),
    Known(
        r"has no hashes table GUID|hashes table area is invalid",
        f"the firmware image has no table of hashes for kernel_hashes: {SEV_OVMF}",
        "guest firmware has no hashes table GUID",
        _SEV_C,
    ),
)

SEV = (
    Known(
        r"accelerator does not support confidential guest|Assertion `machine->cgs->ready' failed",
        "SEV needs KVM: leave accel at auto or kvm",
        "machine->cgs->ready",
        "system/vl.c; of 7.2 an assertion",
    ),
    Known(
        r"cbitpos check failed",
        "cbitpos is another on this CPU: leave security.cbitpos at auto, and see whether this is an AMD EPYC",
        "cbitpos check failed, host '%d' requested '%d'",
        _SEV_C,
    ),
    Known(
        r"vm-type SEV-SNP not supported by KVM|KVM does not support guest_memfd",
        _NO_SNP,
        "vm-type %s not supported by KVM",
        f"{KVM_ALL}, {_SEV_C}",
    ),
    Known(
        r"host kernel does not support requested KVM_X86_SEV(_ES)?_VM",
        f"this kernel has no KVM_SEV_INIT2, which came with Linux {linux_since('KVM_SEV_INIT2')}: leave "
        "security.legacy_vm_type out",
        "SEV: host kernel does not support requested %s VM type",
        _SEV_C,
    ),
    # sev_asid_new() there is EBUSY without a free one, or over the limit of the misc cgroup.
    Known(
        r"kvm_init: failed to initialize ret=-16\b",
        "no ASID is free: as many encrypted guests run as this CPU, or the misc cgroup, allows: take one down, or see "
        "`sevlaunch doctor`",
        "failed to initialize ret=%d fw_error=%d",
        _SEV_C,
    ),
    Known(
        r"SEV: Failed to read '([^']+)'",
        "the owner's certificate or session can't be read: name the files again in security.dh_cert and "
        "security.session, as `sevlaunch owner session` wrote them",
        "SEV: Failed to read '%s' (%s)",
        _SEV_C,
    ),
    Known(
        r"Error creating KVM guest_memfd: (?!Cannot allocate memory)",
        _NO_SNP,
        "Error creating KVM guest_memfd",
        KVM_ALL,
    ),
    Known(
        r"no secret area found in OVMF",
        f"the firmware image has no area for secrets: {SEV_OVMF}",
        "SEV: no secret area found in OVMF, gpa must be specified.",
        _SEV_C,
    ),
    Known(
        r"Not in correct state\. \(LSECRET\)",
        "a secret goes in between launch and run: start the guest with --paused, and inject it before resume",
        "SEV: Not in correct state. (LSECRET) %x",
        _SEV_C,
    ),
    # AMD 56421 (GHCB), table of termination reasons; edk2 and Linux use set 0, Linux a second one of its own.
    Known(
        r"SEV termination \(reason set: 0 code: 1\)",
        "the guest ended itself: it and KVM have no version of the GHCB protocol in common: use a newer kernel in one "
        "of them",
        "SEV termination (reason set: %d code: %d)",
        "target/i386/kvm/kvm.c",
    ),
    Known(
        r"SEV termination \(reason set: 0 code: 2\)",
        "the guest ended itself: it needs a feature of SNP that this host does not give it",
        "SEV termination (reason set: %d code: %d)",
        "target/i386/kvm/kvm.c",
    ),
    Known(
        r"SEV termination \(reason set",
        "the guest ended itself, as it found something wrong with how it runs: what it printed last says more "
        "(sevlaunch logs NAME)",
        "SEV termination (reason set: %d code: %d)",
        "target/i386/kvm/kvm.c",
    ),
    Known(
        r"requires SEV-ES, but host SEV-ES support unavailable",
        "SEV-ES is off in kvm_amd, or has no ASIDs left: see `sevlaunch doctor`",
        "guest policy requires SEV-ES, but",
        _SEV_C,
    ),
    Known(
        r"(Failed to open|Could not open) '?/dev/sev'?:? ?'?(Permission denied|Operation not permitted)",
        f"QEMU opens /dev/sev, {PERMISSION}",
        "Failed to open %s '%s'",
        f"{_SEV_C}; newer ones: util/error.c",
    ),
    Known(
        r"(Failed to open|Could not open) '?/dev/sev",
        f"/dev/sev can't be opened: {MODULES['/dev/sev']}",
        "Failed to open %s '%s'",
        f"{_SEV_C}; newer ones: util/error.c",
    ),
    Known(
        r"kvm_init: failed to initialize ret=|failed to get platform status|"
        r"does not support the requested SEV configuration|SEV is not enabled in KVM",
        _NO_SEV,
        "failed to initialize ret=%d fw_error=%d",
        _SEV_C,
    ),
    Known(
        r"does not support SMM|SEV-ES guests require in-kernel irqchip",
        "SEV-ES and SNP guests have no SMM, and their interrupt controllers in KVM: leave out of qemu.extra_args what "
        "says otherwise",
        "SEV-SNP does not support SMM.",
        _SEV_C,
    ),
    Known(
        r"pflash with kvm requires KVM readonly memory support|Failed to encrypt pflash rom",
        "this guest can't have pflash: use firmware.image with a stateless image (OVMF.amdsev.fd); for SEV-ES leave "
        "security.legacy_vm_type out",
        "pflash with kvm requires KVM readonly memory support",
        "hw/i386/pc_sysfw.c",
    ),
    Known(
        r"cpus are not resettable, terminating",
        f"before QEMU {qemu_since('reset of SEV-ES and SNP guests')} a reboot of a SEV-ES or SNP guest ends it: start "
        "it with --foreground, which starts it anew",
        "cpus are not resettable, terminating",
        "system/runstate.c",
    ),
)
