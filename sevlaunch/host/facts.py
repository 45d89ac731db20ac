"""The facts that make up a Host, each group as the probe of that name finds it. Plain data, saved as JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

# Of the devices that a QEMU knows, those that a plan may ask for.
DEVICE_PREFIXES = (
    "virtio-",
    "vhost-",
    "qxl",
    "VGA",
    "ide-hd",
    "ide-cd",
    "scsi-hd",
    "scsi-cd",
    "virtconsole",
    "ich9-ahci",
    "nvme",
    "e1000e",
    "qemu-xhci",
    "usb-tablet",
    "tpm-",
    "intel-iommu",
    "i6300esb",
    "pvpanic",
    "isa-serial",
)
# Bytes of what a QEMU knows, at most.
MAX_ANSWERS = 16 << 20


class Facts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A group of facts about a machine."""


class EncryptionLeaf(Facts, frozen=True, kw_only=True):
    """CPUID 0x8000001F as read. AMD 24594 (APM volume 3), appendix E.4.17."""

    eax: int
    ebx: int
    ecx: int
    edx: int

    @property
    def sme(self) -> bool:
        """The CPU has SME, which SEV builds on."""
        return bool(self.eax & 1)

    @property
    def sev(self) -> bool:
        """The CPU has SEV."""
        return bool(self.eax >> 1 & 1)

    @property
    def sev_es(self) -> bool:
        """The CPU has SEV-ES."""
        return bool(self.eax >> 3 & 1)

    @property
    def sev_snp(self) -> bool:
        """The CPU has SEV-SNP."""
        return bool(self.eax >> 4 & 1)

    @property
    def page_flush_msr(self) -> bool:
        """The CPU has the MSR that flushes one page of a guest, a shortcut for KVM."""
        return bool(self.eax >> 2 & 1)

    @property
    def vmpls(self) -> int:
        """How many VM permission levels a SNP guest has; 0: the CPU has none."""
        return self.ebx >> 12 & 0xF if self.eax >> 5 & 1 else 0

    @property
    def cbitpos(self) -> int:
        """Position of the C-bit in a page table entry."""
        return self.ebx & 0x3F

    @property
    def reduced_phys_bits(self) -> int:
        """Physical address bits that the host loses; a guest loses one."""
        return self.ebx >> 6 & 0x3F

    @property
    def sev_guests(self) -> int:
        """How many SEV guests can run at once: the ASIDs from the minimum on."""
        return max(0, self.ecx - self.edx + 1)

    @property
    def es_guests(self) -> int:
        """How many SEV-ES and SNP guests can run at once: the ASIDs below the minimum for SEV."""
        return max(0, self.edx - 1)


class CpuFacts(Facts, frozen=True, kw_only=True):
    """The processor."""

    vendor: str = ""
    name: str = ""
    family: int = 0
    model: int = 0
    stepping: int = 0
    count: Annotated[int, Meta(description="CPUs that this user's processes may run on")] = 1
    allowed: Annotated[list[int], Meta(description="the numbers of these; none: not looked at")] = []
    read_by: Annotated[str, Meta(description="how CPUID was read, or why it could not be")] = ""
    instruction_cbitpos: Annotated[
        int,
        Meta(description="EBX[5:0] of CPUID 0x8000001F, with or without the leaf: QEMU compares cbitpos with it"),
    ] = 0
    encryption: Annotated[
        EncryptionLeaf | None, Meta(description="CPUID 0x8000001F; null: this CPU does not have it")
    ] = None
    hypervisor: Annotated[bool, Meta(description="CPUID 1 ECX[31]: this machine is a virtual one itself")] = False
    kernel_flags: Annotated[
        list[str] | None,
        Meta(description="the FLAGS of host/processor.py that /proc/cpuinfo lists; null: not read"),
    ] = None


class Device(Facts, frozen=True, kw_only=True):
    """A device file, and whether this user can open it for reading and writing."""

    path: str
    exists: bool = False
    mode: Annotated[str, Meta(description="octal permissions")] = ""
    owner: str = ""
    group: str = ""
    acl: Annotated[list[str], Meta(description="users and groups of its access control list, such as user:7:rw-")] = []
    openable: bool = False
    error: Annotated[str, Meta(description="why it can't be opened")] = ""


class KvmFacts(Facts, frozen=True, kw_only=True):
    """KVM in the kernel."""

    module: Annotated[
        str, Meta(description="the module that drives the hardware: kvm_amd, kvm_intel, another, or none")
    ] = ""
    parameters: Annotated[dict[str, str], Meta(description="/sys/module/kvm*/parameters, as kvm_amd.sev")] = {}
    snp_policy_bits: Annotated[
        int | None, Meta(description="KVM_X86_SNP_POLICY_BITS, from Linux 6.19 on; null: not told")
    ] = None
    most_vcpus: Annotated[
        int | None, Meta(description="KVM_CAP_MAX_VCPUS, vCPUs that a guest can have at most; null: not told")
    ] = None
    device: Device = Device(path="/dev/kvm")
    sev_device: Device = Device(path="/dev/sev")

    def enabled(self, parameter: str) -> bool:
        """Whether a boolean parameter of kvm_amd is on: the kernel prints Y, older ones 1."""
        return self.parameters.get(f"kvm_amd.{parameter}", "") in ("Y", "y", "1")

    @property
    def runs_firmware(self) -> bool:
        """Whether a guest's firmware can run. The paravirtual kvm_pvm can't run real mode and 32-bit code."""
        return self.module in ("kvm_amd", "kvm_intel")


class QemuFacts(Facts, frozen=True, kw_only=True):
    """A QEMU binary and what it says of itself."""

    binary: str
    version: Annotated[str, Meta(description="such as 7.2.22")]
    package: str = ""
    machines: Annotated[dict[str, str], Meta(description="machine type or alias -> machine type")]
    most_cpus: Annotated[dict[str, int], Meta(description="machine type -> vCPUs that it can have at most")] = {}
    topology: Annotated[list[str], Meta(description="what -smp takes, such as dies and modules")] = []
    cpu_models: list[str]
    cpu_properties: Annotated[
        dict[str, str], Meta(description="what can be set of a CPU -> its type as QEMU names it, such as bool")
    ] = {}
    objects: Annotated[dict[str, list[str]], Meta(description="confidential guest objects -> their properties")]
    object_types: Annotated[list[str], Meta(description="types that -object can make")]
    devices: Annotated[list[str], Meta(description="devices that sevlaunch can use")]
    netdevs: list[str] = []
    aio: Annotated[list[str], Meta(description="ways to read and write a file, such as io_uring; none: not told")] = []

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


class IoUringFacts(Facts, frozen=True, kw_only=True):
    """io_uring, as a process of this user's has it."""

    usable: bool
    error: Annotated[str, Meta(description="why it can't be used")] = ""
    disabled: Annotated[
        int | None, Meta(description="kernel.io_uring_disabled: 0 for all, 1 for a group, 2 for nobody; null: not told")
    ] = None

    @property
    def is_for_a_group(self) -> bool:
        """Whether other users may lack what this one has."""
        return self.disabled == 1


class CgroupFacts(Facts, frozen=True, kw_only=True):
    """The cgroup of this process, as far as it limits memory."""

    version: Annotated[int, Meta(description="2, 1 (memory is in the old hierarchy), or 0: no memory controller")] = 0
    path: Annotated[str, Meta(description="folder of the cgroup that this process is in")] = ""
    limit: Annotated[int | None, Meta(description="smallest memory.max from here to the root, bytes; null: none")] = (
        None
    )
    limited_by: Annotated[str, Meta(description="the file that says so")] = ""
    parent: Annotated[
        str, Meta(description="cgroup v2 folder where this user may make one with a memory limit, or empty")
    ] = ""
    parent_problem: Annotated[str, Meta(description="why there is none")] = ""
    systemd: Annotated[
        Literal["", "system", "user"], Meta(description="the systemd that makes scopes for this user")
    ] = ""


class MemoryFacts(Facts, frozen=True, kw_only=True):
    """Memory and the limits on locking it."""

    total: Annotated[int, Meta(description="bytes")] = 0
    available: Annotated[int, Meta(description="bytes")] = 0
    swap: Annotated[int, Meta(description="bytes of swap space")] = 0
    hugepages_free: Annotated[dict[str, int], Meta(description="page size such as 2M -> free pages")] = {}
    hugepages_total: Annotated[dict[str, int], Meta(description="page size such as 2M -> pages, free or used")] = {}
    nodes: Annotated[
        dict[str, dict[str, int]],
        Meta(description="NUMA node number -> free pages by size such as 2M, and free bytes as free"),
    ] = {}
    node_cpus: Annotated[dict[str, list[int]], Meta(description="NUMA node number -> its CPUs")] = {}
    cgroup: CgroupFacts = CgroupFacts()
    memlock_soft: Annotated[int | None, Meta(description="RLIMIT_MEMLOCK in bytes; null: unlimited")] = None
    memlock_hard: int | None = None
    stack: Annotated[int, Meta(description="bytes of a thread's stack, from RLIMIT_STACK")] = 8 << 20
    can_set_limits: Annotated[
        bool, Meta(description="CAP_SYS_RESOURCE: limits can be raised for another user, too")
    ] = False
    can_raise_memlock: Annotated[bool, Meta(description="CAP_SYS_RESOURCE or CAP_IPC_LOCK")] = False


class SevStatus(Facts, frozen=True, kw_only=True):
    """The answer to SEV_PLATFORM_STATUS: linux/psp-sev.h, struct sev_user_data_status."""

    api_major: int
    api_minor: int
    build: int
    state: Annotated[int, Meta(description="0 uninit, 1 init, 2 working")]
    es: Annotated[bool, Meta(description="initialised for SEV-ES")]
    guests: Annotated[int, Meta(description="guests that the secure processor knows")]


class SnpStatus(Facts, frozen=True, kw_only=True):
    """The answer to SNP_PLATFORM_STATUS: linux/psp-sev.h, struct sev_user_data_snp_status."""

    api_major: int
    api_minor: int
    build: int
    state: Annotated[int, Meta(description="0 uninit, 1 init")]
    rmp_initialized: bool
    guests: int
    current_tcb: Annotated[int, Meta(description="TCB_VERSION of the firmware that runs")]
    reported_tcb: Annotated[int, Meta(description="TCB_VERSION in attestation reports")]


class AsidPool(Facts, frozen=True, kw_only=True):
    """The ASIDs of one kind, from the misc cgroup."""

    capacity: int
    used: int


class Setting(Facts, frozen=True, kw_only=True):
    """A kernel parameter or module option that has to do with SEV."""

    where: str
    text: str


class PlatformFacts(Facts, frozen=True, kw_only=True):
    """What only `sevlaunch doctor` looks at, around KVM and the secure processor."""

    sev: SevStatus | None = None
    sev_problem: Annotated[str, Meta(description="why the secure processor did not tell its status")] = ""
    snp: SnpStatus | None = None
    snp_problem: str = ""
    kvm_api: Annotated[int | None, Meta(description="KVM_GET_API_VERSION; null: not asked")] = None
    kvm_vm_types: Annotated[
        int | None, Meta(description="KVM_CAP_VM_TYPES, a bit for each type of VM; null: not told")
    ] = None
    asids: Annotated[dict[str, AsidPool], Meta(description="sev and sev_es, from the misc cgroup where it is on")] = {}
    iommu_table: Annotated[str, Meta(description="IVRS (AMD) or DMAR (Intel), if the BIOS has such a table")] = ""
    iommu_groups: int = 0
    kernel_log: Annotated[
        list[str] | None, Meta(description="lines about SEV, SNP, the ccp and the IOMMU; null: not read")
    ] = None
    kernel_log_problem: str = ""
    settings: Annotated[list[Setting], Meta(description="from the kernel's command line and /etc/modprobe.d")] = []
    syscfg: Annotated[int | None, Meta(description="MSR 0xC0010010; null: not read")] = None
    syscfg_problem: str = ""
    container: Annotated[str, Meta(description="the kind of container that this is, or empty")] = ""
    seccomp_actions: Annotated[list[str], Meta(description="/proc/sys/kernel/seccomp/actions_avail")] = []
    devices: Annotated[list[Device], Meta(description="/dev/net/tun, /dev/vhost-net, /dev/vhost-vsock")] = []


class ImageFacts(Facts, frozen=True, kw_only=True):
    """What a disk's image is, by a look into it."""

    format: Annotated[str, Meta(description="by its magic, as QEMU's block driver is called")]
    block_device: bool
    size: Annotated[int, Meta(description="bytes of the file, or of the device")]
    luks: Annotated[bool, Meta(description="it is a LUKS container, or qcow2 with LUKS inside")] = False
    virtual_size: Annotated[int | None, Meta(description="bytes of a raw or qcow2 disk as its guest sees it")] = None
    leans_on: Annotated[str, Meta(description="the other file that a qcow2 image has its content in, or empty")] = ""
    damage: Annotated[str, Meta(description="what the header of a qcow2 image says that can't be, or empty")] = ""


class UkiFacts(Facts, frozen=True, kw_only=True):
    """What the sections of a unified kernel image say."""

    name: Annotated[str, Meta(description="the system's, by .osrel, or empty")] = ""
    uname: Annotated[str, Meta(description="the kernel's release, or empty")] = ""
    cmdline: Annotated[str | None, Meta(description="its own command line; null: it has none")] = None
    initrd_bytes: Annotated[int, Meta(description="size of its initrd; 0: it has none")] = 0
    profiles: Annotated[int, Meta(description="how many profiles it has to choose from")] = 1


class BootFacts(Facts, frozen=True, kw_only=True):
    """What a profile's direct boot starts, by a look into its kernel, or into the image that it is taken from."""

    problem: Annotated[str, Meta(description="why nothing can be taken from the image, or empty")] = ""
    hint: str = ""
    kernel: Annotated[str, Meta(description="the file that QEMU gets")] = ""
    initrd: Annotated[str, Meta(description="the file that QEMU gets; empty: none")] = ""
    cmdline: Annotated[str | None, Meta(description="the image's command line; null: it has none")] = None
    uki: Annotated[UkiFacts | None, Meta(description="null: the kernel is no unified image")] = None
    places: Annotated[dict[str, str], Meta(description="where kernel, initrd and cmdline are in the image")] = {}
    roots: Annotated[list[str], Meta(description="names of its file systems for root=, such as UUID=...")] = []
    all_named: Annotated[bool, Meta(description="those are the names of all of its file systems")] = False
    cautions: list[str] = []


class VerityFacts(Facts, frozen=True, kw_only=True):
    """The hash tree of a disk, by its superblock and its top block: sevlaunch.verity."""

    data: Annotated[str, Meta(description="path, or entry in the cache, of the disk's image")]
    hashes: Annotated[str | None, Meta(description="that of the disk with the tree; null: appended to the data")]
    problem: Annotated[str, Meta(description="why the tree can't be read, or empty")] = ""
    missing: Annotated[bool, Meta(description="because an image is not here")] = False
    root_hash: Annotated[str, Meta(description="hexadecimal, by the tree alone")] = ""
    algorithm: str = ""
    data_block_size: int = 0
    hash_block_size: int = 0
    data_blocks: int = 0
    salt: Annotated[str, Meta(description="hexadecimal")] = ""
    offset: Annotated[int, Meta(description="bytes in front of the superblock")] = 0
    start: Annotated[int, Meta(description="bytes in front of the tree itself")] = 0


class HelperFacts(Facts, frozen=True, kw_only=True):
    """A helper program that runs beside QEMU."""

    path: str
    options: Annotated[list[str], Meta(description="long options that its help names, such as --shared-dir")]


class Distribution(Facts, frozen=True, kw_only=True):
    """The distribution, by os-release(5)."""

    id: Annotated[str, Meta(description="such as debian")] = ""
    like: Annotated[list[str], Meta(description="the distributions that it comes from")] = []
    version: Annotated[str, Meta(description="such as 12, empty for one that only moves on")] = ""
    name: Annotated[str, Meta(description="for people")] = ""

    @property
    def release(self) -> tuple[int, ...]:
        """The version in numbers; (): it has none, and is the newest."""
        parts = self.version.split(".")
        return tuple(int(part) for part in parts) if all(part.isascii() and part.isdigit() for part in parts) else ()


class Folders(Facts, frozen=True, kw_only=True):
    """Where this user's guests have their files."""

    runtime: Annotated[str, Meta(description="running guests: sockets, locks, logs")]
    state: Annotated[str, Meta(description="what outlives a guest: its NVRAM")]
    images: Annotated[str, Meta(description="the cache of fetched images")] = "/var/cache/sevlaunch/images"
