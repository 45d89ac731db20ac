"""The facts that make up a Host, each group as the probe of that name finds it. Plain data, saved as JSON."""

# No postponed annotations: to evaluate them takes msgspec longer than to read a saved host.
from typing import Literal

from msgspec import Struct

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
    count: int = 1  # CPUs that this user's processes may run on
    allowed: list[int] = []  # the numbers of these; none: not looked at
    read_by: str = ""  # how CPUID was read, or why it could not be
    # EBX[5:0] of CPUID 0x8000001F, with or without the leaf: QEMU compares cbitpos with it
    instruction_cbitpos: int = 0
    encryption: EncryptionLeaf | None = None  # CPUID 0x8000001F; null: this CPU does not have it
    hypervisor: bool = False  # CPUID 1 ECX[31]: this machine is a virtual one itself
    kernel_flags: list[str] | None = None  # the FLAGS of host/processor.py that /proc/cpuinfo lists; null: not read


class Device(Facts, frozen=True, kw_only=True):
    """A device file, and whether this user can open it for reading and writing."""

    path: str
    exists: bool = False
    mode: str = ""  # octal permissions
    owner: str = ""
    group: str = ""
    acl: list[str] = []  # users and groups of its access control list, such as user:7:rw-
    openable: bool = False
    error: str = ""  # why it can't be opened


class KvmFacts(Facts, frozen=True, kw_only=True):
    """KVM in the kernel."""

    module: str = ""  # the module that drives the hardware: kvm_amd, kvm_intel, another, or none
    parameters: dict[str, str] = {}  # /sys/module/kvm*/parameters, as kvm_amd.sev
    snp_policy_bits: int | None = None  # KVM_X86_SNP_POLICY_BITS, from Linux 6.19 on; null: not told
    most_vcpus: int | None = None  # KVM_CAP_MAX_VCPUS, vCPUs that a guest can have at most; null: not told
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
    version: str  # such as 7.2.22
    package: str = ""
    machines: dict[str, str]  # machine type or alias -> machine type
    most_cpus: dict[str, int] = {}  # machine type -> vCPUs that it can have at most
    topology: list[str] = []  # what -smp takes, such as dies and modules
    cpu_models: list[str]
    cpu_properties: dict[str, str] = {}  # what can be set of a CPU -> its type as QEMU names it, such as bool
    objects: dict[str, list[str]]  # confidential guest objects -> their properties
    object_types: list[str]  # types that -object can make
    devices: list[str]  # devices that sevlaunch can use
    netdevs: list[str] = []
    aio: list[str] = []  # ways to read and write a file, such as io_uring; none: not told

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


class IoUringFacts(Facts, frozen=True, kw_only=True):
    """io_uring, as a process of this user's has it."""

    usable: bool
    error: str = ""  # why it can't be used
    disabled: int | None = None  # kernel.io_uring_disabled: 0 for all, 1 for a group, 2 for nobody; null: not told

    @property
    def is_for_a_group(self) -> bool:
        """Whether other users may lack what this one has."""
        return self.disabled == 1


class CgroupFacts(Facts, frozen=True, kw_only=True):
    """The cgroup of this process, as far as it limits memory."""

    version: int = 0  # 2, 1 (memory is in the old hierarchy), or 0: no memory controller
    path: str = ""  # folder of the cgroup that this process is in
    limit: int | None = None  # smallest memory.max from here to the root, bytes; null: none
    limited_by: str = ""  # the file that says so
    parent: str = ""  # cgroup v2 folder where this user may make one with a memory limit, or empty
    parent_problem: str = ""  # why there is none
    systemd: Literal["", "system", "user"] = ""  # the systemd that makes scopes for this user


class MemoryFacts(Facts, frozen=True, kw_only=True):
    """Memory and the limits on locking it."""

    total: int = 0  # bytes
    available: int = 0  # bytes
    swap: int = 0  # bytes of swap space
    hugepages_free: dict[str, int] = {}  # page size such as 2M -> free pages
    hugepages_total: dict[str, int] = {}  # page size such as 2M -> pages, free or used
    nodes: dict[str, dict[str, int]] = {}  # NUMA node number -> free pages by size such as 2M, and free bytes as free
    node_cpus: dict[str, list[int]] = {}  # NUMA node number -> its CPUs
    cgroup: CgroupFacts = CgroupFacts()
    memlock_soft: int | None = None  # RLIMIT_MEMLOCK in bytes; null: unlimited
    memlock_hard: int | None = None
    stack: int = 8 << 20  # bytes of a thread's stack, from RLIMIT_STACK
    can_set_limits: bool = False  # CAP_SYS_RESOURCE: limits can be raised for another user, too
    can_raise_memlock: bool = False  # CAP_SYS_RESOURCE or CAP_IPC_LOCK


class SevStatus(Facts, frozen=True, kw_only=True):
    """The answer to SEV_PLATFORM_STATUS: linux/psp-sev.h, struct sev_user_data_status."""

    api_major: int
    api_minor: int
    build: int
    state: int  # 0 uninit, 1 init, 2 working
    es: bool  # initialised for SEV-ES
    guests: int  # guests that the secure processor knows


class SnpStatus(Facts, frozen=True, kw_only=True):
    """The answer to SNP_PLATFORM_STATUS: linux/psp-sev.h, struct sev_user_data_snp_status."""

    api_major: int
    api_minor: int
    build: int
    state: int  # 0 uninit, 1 init
    rmp_initialized: bool
    guests: int
    current_tcb: int  # TCB_VERSION of the firmware that runs
    reported_tcb: int  # TCB_VERSION in attestation reports


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
    sev_problem: str = ""  # why the secure processor did not tell its status
    snp: SnpStatus | None = None
    snp_problem: str = ""
    kvm_api: int | None = None  # KVM_GET_API_VERSION; null: not asked
    kvm_vm_types: int | None = None  # KVM_CAP_VM_TYPES, a bit for each type of VM; null: not told
    asids: dict[str, AsidPool] = {}  # sev and sev_es, from the misc cgroup where it is on
    iommu_table: str = ""  # IVRS (AMD) or DMAR (Intel), if the BIOS has such a table
    iommu_groups: int = 0
    kernel_log: list[str] | None = None  # lines about SEV, SNP, the ccp and the IOMMU; null: not read
    kernel_log_problem: str = ""
    settings: list[Setting] = []  # from the kernel's command line and /etc/modprobe.d
    syscfg: int | None = None  # MSR 0xC0010010; null: not read
    syscfg_problem: str = ""
    container: str = ""  # the kind of container that this is, or empty
    seccomp_actions: list[str] = []  # /proc/sys/kernel/seccomp/actions_avail
    devices: list[Device] = []  # /dev/net/tun, /dev/vhost-net, /dev/vhost-vsock


class ImageFacts(Facts, frozen=True, kw_only=True):
    """What a disk's image is, by a look into it."""

    format: str  # by its magic, as QEMU's block driver is called
    block_device: bool
    size: int  # bytes of the file, or of the device
    luks: bool = False  # it is a LUKS container, or qcow2 with LUKS inside
    virtual_size: int | None = None  # bytes of a raw or qcow2 disk as its guest sees it
    leans_on: str = ""  # the other file that a qcow2 image has its content in, or empty
    damage: str = ""  # what the header of a qcow2 image says that can't be, or empty


class UkiFacts(Facts, frozen=True, kw_only=True):
    """What the sections of a unified kernel image say."""

    name: str = ""  # the system's, by .osrel, or empty
    uname: str = ""  # the kernel's release, or empty
    cmdline: str | None = None  # its own command line; null: it has none
    initrd_bytes: int = 0  # size of its initrd; 0: it has none
    profiles: int = 1  # how many profiles it has to choose from


class BootFacts(Facts, frozen=True, kw_only=True):
    """What a profile's direct boot starts, by a look into its kernel, or into the image that it is taken from."""

    problem: str = ""  # why nothing can be taken from the image, or empty
    hint: str = ""
    kernel: str = ""  # the file that QEMU gets
    initrd: str = ""  # the file that QEMU gets; empty: none
    cmdline: str | None = None  # the image's command line; null: it has none
    uki: UkiFacts | None = None  # null: the kernel is no unified image
    places: dict[str, str] = {}  # where kernel, initrd and cmdline are in the image
    roots: list[str] = []  # names of its file systems for root=, such as UUID=...
    all_named: bool = False  # those are the names of all of its file systems
    cautions: list[str] = []


class VerityFacts(Facts, frozen=True, kw_only=True):
    """The hash tree of a disk, by its superblock and its top block: sevlaunch.verity."""

    data: str  # path, or entry in the cache, of the disk's image
    hashes: str | None  # that of the disk with the tree; null: appended to the data
    problem: str = ""  # why the tree can't be read, or empty
    missing: bool = False  # because an image is not here
    root_hash: str = ""  # hexadecimal, by the tree alone
    algorithm: str = ""
    data_block_size: int = 0
    hash_block_size: int = 0
    data_blocks: int = 0
    salt: str = ""  # hexadecimal
    offset: int = 0  # bytes in front of the superblock
    start: int = 0  # bytes in front of the tree itself


class HelperFacts(Facts, frozen=True, kw_only=True):
    """A helper program that runs beside QEMU."""

    path: str
    options: list[str]  # long options that its help names, such as --shared-dir


class Distribution(Facts, frozen=True, kw_only=True):
    """The distribution, by os-release(5)."""

    id: str = ""  # such as debian
    like: list[str] = []  # the distributions that it comes from
    version: str = ""  # such as 12, empty for one that only moves on
    name: str = ""  # for people

    @property
    def release(self) -> tuple[int, ...]:
        """The version in numbers; (): it has none, and is the newest."""
        parts = self.version.split(".")
        return tuple(int(part) for part in parts) if all(part.isascii() and part.isdigit() for part in parts) else ()


class Folders(Facts, frozen=True, kw_only=True):
    """Where this user's guests have their files."""

    runtime: str  # running guests: sockets, locks, logs
    state: str  # what outlives a guest: its NVRAM
    images: str = "/var/cache/sevlaunch/images"  # the cache of fetched images
