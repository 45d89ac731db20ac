"""Why parts of a domain that no module reads stay behind: words for the report, by the element's name.

What stands in neither table is reported, too: as not supported.
"""

from __future__ import annotations

from enum import StrEnum

from sevlaunch.libvirt.document import Element


class Kind(StrEnum):
    """The kinds of outcome. After the last two the guest lacks something that the domain has."""

    CARRIED = "carried"
    CORRECTED = "corrected"
    DROPPED = "dropped"
    UNSUPPORTED = "not supported"
    REFUSED = "refused"


LOST = (Kind.UNSUPPORTED, Kind.REFUSED)

# The guest runs without them as it did before. Keys: element, parent/element, or either with @attribute.
DROPPED = {
    "address": "QEMU places the device",
    "alias": "libvirt's name for the device",
    "seclabel": "sevlaunch runs QEMU as the user who calls it, without sVirt",
    "metadata": "notes of management programs",
    "resource": "the cgroup of libvirt's process",
    "backingStore": "QEMU reads the backing files from the image",
    "mirror": "the state of a running block job",
    "actual": "what libvirt found at the start",
    "domain@id": "the number of the running domain",
    "source@index": "libvirt's number for the image",
    "source@portid": "libvirt's number for the network port",
    "disk@snapshot": "how libvirt takes snapshots; an encrypted guest has none",
    "interface@trustGuestRxFilters": "for macvtap interfaces only",
    "interface/target": "libvirt's name for the tap interface",
    "memballoon/stats": "how often libvirt asks for statistics",
    "stats": "how often libvirt asks for statistics",
    "audio": "without a sound device there is nothing to hear",
    "features/acpi": "always on",
    "features/apic": "always on",
    "features/ioapic": "interrupt controllers are outside of KVM where the guest needs that",
    "features/pae": "every 64-bit processor has it",
    "features/hap": "for Xen",
    "controller": "sevlaunch makes the controllers that the devices need",
    "on_poweroff": "a power-off ends QEMU",
    "graphics/image": "SPICE chooses how it compresses",
    "graphics/jpeg": "SPICE chooses how it compresses",
    "graphics/zlib": "SPICE chooses how it compresses",
    "graphics/playback": "SPICE chooses how it compresses",
    "graphics/streaming": "SPICE chooses how it compresses",
    "graphics/mouse": "SPICE asks the guest's agent or tablet",
    "vcpu@placement": "the host's scheduler places them",
}

UNKNOWN = "sevlaunch has no key for it"

_PINNING = "sevlaunch keeps vCPUs on host CPUs, not QEMU's other threads: use a systemd unit with CPUAffinity="
_TUNING = "sevlaunch sets no cgroup limits: start it in a systemd unit that does"
_IOTHREADS = "sevlaunch makes those threads that disks name"
_HOTPLUG = "sevlaunch plugs nothing in while the guest runs"

# The guest lacks them.
UNSUPPORTED = {
    "genid": "no VM generation ID device",
    "maxMemory": _HOTPLUG,
    "devices/memory": _HOTPLUG,
    "vcpus": _HOTPLUG,
    "vcpu@cpuset": _PINNING,
    "cputune": _TUNING,
    "blkiotune": _TUNING,
    "iotune": _TUNING,
    "bandwidth": _TUNING,
    "soft_limit": _TUNING,
    "swap_hard_limit": _TUNING,
    "min_guarantee": _TUNING,
    "iothreads": _IOTHREADS,
    "iothreadids": _IOTHREADS,
    "defaultiothread": _IOTHREADS,
    "driver@iothread": "an I/O thread is for a virtio disk; for all virtio-scsi disks, say it in disks (iothread)",
    "cpu/numa": "no tables of latencies and caches, and no cells without memory",
    "numatune": "sevlaunch binds memory to nodes of the host, and does nothing else",
    "sysinfo": "sevlaunch has the tables of smbios, and files below opt/ in fw_cfg",
    "os/smbios": "the host's own tables are none of the guest's",
    "os/shim": "QEMU gets no shim: the kernel is started directly",
    "os/bios": "the firmware decides",
    "os/acpi": "no ACPI tables of one's own; qemu.extra_args takes -acpitable",
    "on_lockfailure": "sevlaunch takes no disk leases",
    "lease": "sevlaunch takes no disk leases",
    "hostdev": "host devices are not assigned",
    "teaming": "no failover between network devices",
    "redirdev": "no USB redirection",
    "redirfilter": "no USB redirection",
    "smartcard": "no smart card readers",
    "sound": "no sound devices",
    "hub": "no USB hubs",
    "parallel": "no parallel ports",
    "panic": "sevlaunch has pvpanic",
    "shmem": "no shared memory devices",
    "iommu": "sevlaunch has those of Intel and virtio",
    "crypto": "no crypto device",
    "pstore": "no pstore device",
    "tpm": "swtpm runs with its defaults",
    "tpm/backend": "swtpm runs with its defaults",
    "backend/active_pcr_banks": "swtpm has those banks on that are its defaults",
    "graphics/channel": "SPICE's channels are all alike",
    "graphics/gl": "no 3D acceleration",
    "graphics/clipboard": "SPICE runs with its defaults, and shares the clipboard with who is connected",
    "graphics/filetransfer": "SPICE runs with its defaults, and takes files from who is connected",
    "filterref": "sevlaunch sets up no network filters: use the host's firewall",
    "link": "a link is always up",
    "mtu": "an MTU is told by virtio devices alone",
    "vlan": "set VLANs on the host's bridge",
    "virtualport": "needs Open vSwitch or 802.1Qbh set up by libvirt",
    "encryption": "no encrypted images",
    "perf": "use perf on the host",
    "keywrap": "for s390x",
    "acceleration": "no 3D acceleration",
    "memoryBacking/source": "memory is not a file",
    "memoryBacking/discard": "memory is not a file",
    "memoryBacking/nosharepages": "the host's kernel decides (KSM)",
    "disk/driver@io": "QEMU's thread pool does the I/O",
    "disk/shareable": "a disk belongs to one guest",
    "throttlefilters": _TUNING,
    "throttlegroups": _TUNING,
    "interface/driver@name": "vhost is for virtio devices on a tap or macvtap interface, or on a bridge",
    "interface/driver": "QEMU's defaults for the rest of the queues",
    "interface/ip": "the guest asks for its address by DHCP",
    "interface/route": "the guest asks for its routes by DHCP",
    "interface/script": "a tap interface is set up before the guest starts",
    "interface/downscript": "a tap interface is set up before the guest starts",
    "interface/coalesce": "a tap interface is set up before the guest starts",
    "filesystem/binary": "virtiofsd runs with its defaults",
    "video/driver@name": "QEMU itself draws",
    "rng/rate": "the guest takes as much as it asks for",
    "cpu/cache": "QEMU's own picture of the caches",
    "qemu:capabilities": "for libvirt alone",
    "qemu:deprecation": "for libvirt alone",
    "qemu:override": "write the device in qemu.extra_args",
}


def reason_for(element: Element, attribute: str = "") -> tuple[Kind, str]:
    """Why something that was not read stays behind: the attribute, or the text or all of the element."""
    names = [element.name]
    if element.parent:
        names.insert(0, f"{element.parent.name}/{element.name}")
    if attribute:
        names = [f"{name}@{attribute}" for name in names]
    for name in names:
        if name in DROPPED:
            return Kind.DROPPED, DROPPED[name]
        if name in UNSUPPORTED:
            return Kind.UNSUPPORTED, UNSUPPORTED[name]
    return Kind.UNSUPPORTED, UNKNOWN
