"""The failures that QEMU prints, in its own words, and what to do about each: a table, in the order of looking."""

from __future__ import annotations

from typing import NamedTuple

from sevlaunch.remedies import MODULES, NEWER_QEMU, SEV_OVMF, linux_since, qemu_since


class Known(NamedTuple):
    """A failure that QEMU words so.

    ``pattern``: a regular expression for its output; ``printed``: what QEMU has of it in its binary, word for word;
    ``source``: where in QEMU, and who has met it.
    """

    pattern: str
    hint: str
    printed: str
    source: str


_PERMISSION = "which this user, or the one of run_as, may not: join its group, or set an ACL on it (setfacl)"
_LOCK_LIMIT = (
    "the limit on locked memory is too low for this guest: raise RLIMIT_MEMLOCK (LimitMEMLOCK= of a service, "
    "limits.conf), or use memory.hugepages"
)
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
_TUN = "the tap interface needs to exist, and to belong to the user who starts the guest (ip tuntap add ... user NAME)"
_MEMORY = "there is not enough free memory, or too few huge pages are free: take less, or free some"
_SEV_C = "target/i386/sev.c"
_KVM_ALL = "accel/kvm/kvm-all.c"

# What says more than the answer of the secure processor that stands beside it. The first match counts.
EXACT = (
    Known(
        r"CPUID validation failed",
        "the secure processor refuses what the CPU model says of itself: leave cpu.model at auto or use EPYC-v4, and "
        "leave out of cpu.features what this CPU does not have",
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
    # sev_pin_memory() in the kernel's arch/x86/kvm/svm/sev.c: more pages than the limit are ENOMEM.
    Known(
        r"failed to register region .* error 'Cannot allocate memory'|LAUNCH_UPDATE(_VMSA)? ret=-12\b",
        _LOCK_LIMIT,
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

KNOWN = (
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
        f"{_KVM_ALL}, {_SEV_C}",
    ),
    Known(
        r"host kernel does not support requested KVM_X86_SEV(_ES)?_VM",
        f"this kernel has no KVM_SEV_INIT2, which came with Linux {linux_since('KVM_SEV_INIT2')}: leave "
        "security.legacy_vm_type out",
        "SEV: host kernel does not support requested %s VM type",
        _SEV_C,
    ),
    Known(
        r"requires SEV-ES, but host SEV-ES support unavailable",
        "SEV-ES is off in kvm_amd, or has no ASIDs left: see `sevlaunch doctor`",
        "guest policy requires SEV-ES, but",
        _SEV_C,
    ),
    Known(
        r"(Failed to open|Could not open) '?/dev/sev'?:? ?'?(Permission denied|Operation not permitted)",
        f"QEMU opens /dev/sev, {_PERMISSION}",
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
    Known(
        r"VIRTIO_F_IOMMU_PLATFORM was supported by neither",
        "a virtio device needs disable-legacy=on for iommu_platform=on",
        "VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device",
        "hw/virtio/virtio-pci.c",
    ),
    Known(
        r"phys-bits too low",
        "the CPU model can't address so much memory: add host-phys-bits=on to cpu.features, or take less memory",
        "phys-bits too low (%u)",
        "hw/i386/pc.c; kata-containers 10751",
    ),
    Known(
        r"mlockall: Cannot allocate memory|locking memory failed", _LOCK_LIMIT, "locking memory failed", "os-posix.c"
    ),
    Known(
        r"unable to map backing store for guest RAM|preallocating memory failed|cannot set up guest memory",
        _MEMORY,
        "cannot set up guest memory '%s'",
        "system/physmem.c, util/oslib-posix.c",
    ),
    Known(
        r"Could not access KVM kernel module: Permission denied",
        f"QEMU opens /dev/kvm, {_PERMISSION}",
        "Could not access KVM kernel module: %m",
        _KVM_ALL,
    ),
    Known(
        r"Could not access KVM kernel module",
        f"KVM can't be used here: {MODULES['/dev/kvm']}; or set accel: tcg",
        "Could not access KVM kernel module: %m",
        _KVM_ALL,
    ),
    Known(
        r"invalid accelerator kvm",
        f"this QEMU is built without KVM: {NEWER_QEMU}",
        "invalid accelerator %s",
        "system/vl.c",
    ),
    Known(
        r"Failed to get (shared )?\"(write|consistent read|resize)\" lock|Failed to lock byte",
        "another process uses the image: is the guest running under another name, or on another host?",
        'Failed to get "%s" lock',
        "block/file-posix.c",
    ),
    Known(
        r"Could not set up host forwarding rule",
        "the host port is in use, or may not be used by this user: choose another one in networks.N.forward",
        "Could not set up host forwarding rule '%s'",
        "net/slirp.c",
    ),
    Known(
        r"could not configure /dev/net/tun[^\n]*: Device or resource busy",
        "another guest, or another program, has the tap interface open: give each guest its own",
        "could not configure %s (%s)",
        "net/tap-linux.c",
    ),
    Known(r"could not configure /dev/net/tun", _TUN, "could not configure %s (%s)", "net/tap-linux.c"),
    Known(
        r"[Cc]ould not open '?/dev/net/tun'?: (Permission denied|Operation not permitted)",
        f"QEMU opens /dev/net/tun, {_PERMISSION}",
        "could not open %s",
        "net/tap-linux.c",
    ),
    Known(
        r"[Cc]ould not open '?/dev/net/tun",
        f"/dev/net/tun can't be opened: {MODULES['/dev/net/tun']}",
        "could not open %s",
        "net/tap-linux.c",
    ),
    Known(
        r"open vhost char device failed|Could not open '/dev/vhost-net'|vhost-net requested but could not be init",
        f"/dev/vhost-net can't be used: {MODULES['/dev/vhost-net']}",
        "vhost-net requested but could not be initialized",
        "net/tap.c",
    ),
    Known(
        r"unable to set guest cid",
        "the vsock context ID is in use: choose another one",
        "vhost-vsock: unable to set guest cid",
        "hw/virtio/vhost-vsock.c",
    ),
    Known(
        r"vhost-vsock: failed to open vhost device|Could not open '/dev/vhost-vsock'",
        f"/dev/vhost-vsock can't be opened: {MODULES['/dev/vhost-vsock']}",
        "failed to open vhost device",
        "hw/virtio/vhost-vsock.c",
    ),
    Known(
        r"bridge helper failed|fork bridge helper",
        "allow the bridge in /etc/qemu/bridge.conf, and see that qemu-bridge-helper has its rights",
        "bridge helper failed",
        "net/tap.c",
    ),
    Known(
        r"could not launch network script",
        "QEMU may start no programs here: add script=no,downscript=no",
        "could not launch network script %s",
        "net/tap.c",
    ),
    Known(
        r"Could not open '([^']+)': Permission denied",
        "QEMU runs as this user, or as that of run_as, who can't open the file",
        "Could not open '%s'",
        "util/error.c",
    ),
    Known(
        r"Could not open '([^']+)': No such file or directory|could not load PC BIOS",
        "the file is not there: correct its path in the profile",
        "could not load PC BIOS '%s'",
        "util/error.c, hw/i386/x86-common.c",
    ),
    Known(
        r"Failed to find an available port|: Address already in use",
        "the port or address is in use: choose another one",
        "Failed to find an available port",
        "util/qemu-sockets.c",
    ),
    Known(r"Cannot allocate memory", _MEMORY, "", "strerror(ENOMEM)"),
    Known(r"No space left on device", "the disk is full", "", "strerror(ENOSPC)"),
    # Whatever it was: only where nothing more exact is known.
    Known(
        r"failed to initialize kvm",
        "KVM can't be used here: see `sevlaunch doctor`, or set accel: tcg",
        "failed to initialize %s: %s",
        "system/vl.c",
    ),
    Known(
        r"terminating on signal 15 from pid",
        "another process ended QEMU; its PID stands there",
        "terminating on signal %d from pid",
        "system/runstate.c",
    ),
)
