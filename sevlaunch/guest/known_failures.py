"""The failures of any guest that QEMU prints, in its own words, and what to do about each: in the order of looking."""

from __future__ import annotations

from sevlaunch.guest.failure import KVM_ALL, LOCK_LIMIT, MEMORY, PERMISSION, Known
from sevlaunch.remedies import MODULES, NEWER_QEMU

_TUN = "the tap interface needs to exist, and to belong to the user who starts the guest (ip tuntap add ... user NAME)"

KNOWN = (
    Known(
        r"VIRTIO_F_IOMMU_PLATFORM was supported by neither",
        "a virtio device needs disable-legacy=on for iommu_platform=on",
        "VIRTIO_F_IOMMU_PLATFORM was supported by neither legacy nor transitional device",
        "hw/virtio/virtio-pci.c",
    ),
    Known(
        r"phys-bits should be (between|at least) 32",
        "phys-bits in cpu.features is no number of address bits that QEMU can give: leave it out, or use "
        "host-phys-bits=on",
        "phys-bits should be",
        "target/i386/host-cpu.c, cpu.c",
    ),
    Known(
        r"phys-bits too low",
        "the CPU model can't address so much memory: add host-phys-bits=on to cpu.features, or take less memory",
        "phys-bits too low (%u)",
        "hw/i386/pc.c; kata-containers 10751",
    ),
    Known(r"mlockall: Cannot allocate memory|locking memory failed", LOCK_LIMIT, "locking memory failed", "os-posix.c"),
    Known(
        r"unable to map backing store for guest RAM|preallocating memory failed|cannot set up guest memory",
        MEMORY,
        "cannot set up guest memory '%s'",
        "system/physmem.c, util/oslib-posix.c",
    ),
    Known(
        r"Could not access KVM kernel module: Permission denied",
        f"QEMU opens /dev/kvm, {PERMISSION}",
        "Could not access KVM kernel module: %m",
        KVM_ALL,
    ),
    Known(
        r"Could not access KVM kernel module",
        f"KVM can't be used here: {MODULES['/dev/kvm']}; or set accel: tcg",
        "Could not access KVM kernel module: %m",
        KVM_ALL,
    ),
    Known(
        r"KVM_CREATE_VM\) failed: (16 )?Device or resource busy",
        "another hypervisor, such as VirtualBox, has the CPU's virtualisation: end it",
        "ioctl(KVM_CREATE_VM) failed:",
        KVM_ALL,
    ),
    Known(
        r"exceeds the maximum cpus supported by KVM",
        "KVM has fewer vCPUs for one guest: lower cpu.count",
        "exceeds the maximum cpus supported by KVM",
        KVM_ALL,
    ),
    Known(
        r"failed to set MSR 0x10a\b",
        "this KVM offers the CPU's ARCH_CAPABILITIES and does not take them, as one that is itself virtual may on AMD: "
        "add arch-capabilities=off to cpu.features, or name a cpu.model such as EPYC",
        "error: failed to set MSR 0x%",
        "target/i386/kvm/kvm.c",
    ),
    Known(
        r"failed to set MSR 0x",
        "this KVM does not take a register that the CPU model brings: name an older cpu.model, such as EPYC",
        "error: failed to set MSR 0x%",
        "target/i386/kvm/kvm.c",
    ),
    Known(
        r"KVM internal error\. Suberror: 1\b",
        "KVM met an instruction that it can't emulate: in an encrypted guest, firmware or kernel are not made for SEV; "
        "a KVM that is itself paravirtual (kvm_pvm) runs no firmware",
        "KVM internal error. Suberror: %d",
        KVM_ALL,
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
        f"QEMU opens /dev/net/tun, {PERMISSION}",
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
        r"Could not open '([^']+)': No such file or directory",
        "the file is not there: correct its path in the profile",
        "Could not open '%s'",
        "util/error.c",
    ),
    Known(
        r"Invalid password, cannot unlock any keyslot",
        "the file of luks_key has to hold the passphrase of the image and nothing else: a line end counts, too",
        "Invalid password, cannot unlock any keyslot",
        "crypto/block-luks.c",
    ),
    Known(
        r"Data from secret .* is not valid UTF-8",
        "QEMU takes a passphrase that is text alone: name another file in luks_key",
        "Data from secret %s is not valid UTF-8",
        "crypto/secret_common.c",
    ),
    Known(
        r"failed to init linux io_uring ring|aio=io_uring was specified, but is not available",
        "the kernel, or a container, keeps io_uring from this process (kernel.io_uring_disabled): use aio: threads",
        "failed to init linux io_uring ring",
        "block/io_uring.c",
    ),
    Known(
        r"failed to create linux AIO context",
        "the kernel has no room for more asynchronous I/O: raise fs.aio-max-nr (sysctl), or use aio: threads",
        "failed to create linux AIO context",
        "block/linux-aio.c",
    ),
    # x86_bios_rom_init() says the same of both.
    Known(
        r"could not load PC BIOS",
        "the firmware image is not there, or its size is no multiple of 64 KiB, which -bios takes: is it the code of a "
        "pflash pair (then it goes into firmware.code), or cut short?",
        "could not load PC BIOS '%s'",
        "hw/i386/x86-common.c",
    ),
    Known(
        r"system firmware block device .* has invalid size|combined size of system firmware exceeds",
        "firmware.code or firmware.vars is nothing that QEMU takes on pflash (whole pages of 4 KiB, 8 MiB in all): is "
        "it another file, or cut short?",
        "system firmware block device %s has invalid size",
        "hw/i386/pc_sysfw.c",
    ),
    Known(
        r"Failed to find an available port|: Address already in use",
        "the port or address is in use: choose another one",
        "Failed to find an available port",
        "util/qemu-sockets.c",
    ),
    Known(r"Cannot allocate memory", MEMORY, "", "strerror(ENOMEM)"),
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
