"""The host: what a machine offers, as plain data that can be saved as JSON and loaded on another machine."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sevlaunch.errors import HostError, Problem

SCHEMA = 1


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EncryptionLeaf(_Facts):
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


class CpuFacts(_Facts):
    """The processor."""

    vendor: str = ""
    name: str = ""
    family: int = 0
    model: int = 0
    stepping: int = 0
    count: int = Field(1, description="CPUs that this user's processes may run on")
    read_by: str = Field("", description="how CPUID was read, or why it could not be")
    instruction_cbitpos: int = Field(
        0,
        description="EBX[5:0] of CPUID 0x8000001F, whether the CPU has the leaf or not: QEMU compares cbitpos with it",
    )
    encryption: EncryptionLeaf | None = Field(None, description="CPUID 0x8000001F; null: this CPU does not have it")
    hypervisor: bool = Field(False, description="CPUID 1 ECX[31]: this machine is a virtual one itself")
    kernel_flags: list[str] | None = Field(
        None, description="what the kernel lets be used of FLAGS in host/probe.py, from /proc/cpuinfo; null: not read"
    )


class Device(_Facts):
    """A device file, and whether this user can open it for reading and writing."""

    path: str
    exists: bool = False
    mode: str = Field("", description="octal permissions")
    owner: str = ""
    group: str = ""
    acl: list[str] = Field(default=[], description="users and groups of its access control list, such as user:7:rw-")
    openable: bool = False
    error: str = Field("", description="why it can't be opened")


class KvmFacts(_Facts):
    """KVM in the kernel."""

    module: str = Field("", description="the module that drives the hardware: kvm_amd, kvm_intel, another, or none")
    parameters: dict[str, str] = Field(default={}, description="/sys/module/kvm*/parameters, as kvm_amd.sev")
    device: Device = Device(path="/dev/kvm")
    sev_device: Device = Device(path="/dev/sev")

    def enabled(self, parameter: str) -> bool:
        """Whether a boolean parameter of kvm_amd is on: the kernel prints Y, older ones 1."""
        return self.parameters.get(f"kvm_amd.{parameter}", "") in ("Y", "y", "1")

    @property
    def runs_firmware(self) -> bool:
        """Whether a guest's firmware can run. The paravirtual kvm_pvm can't run real mode and 32-bit code."""
        return self.module in ("kvm_amd", "kvm_intel")


class QemuFacts(_Facts):
    """A QEMU binary and what it says of itself."""

    binary: str
    version: str = Field(description="such as 7.2.22")
    package: str = ""
    machines: dict[str, str] = Field(description="machine type or alias -> machine type")
    cpu_models: list[str]
    objects: dict[str, list[str]] = Field(description="confidential guest objects -> their properties")
    object_types: list[str] = Field(description="types that -object can make")
    devices: list[str] = Field(description="devices that sevlaunch can use")
    netdevs: list[str] = []

    @property
    def release(self) -> tuple[int, int]:
        """Major and minor version."""
        major, minor = self.version.split(".")[:2]
        return int(major), int(minor)


class FirmwareDescriptor(_Facts):
    """A firmware descriptor, QEMU's docs/interop/firmware.json."""

    file: str
    description: str = ""
    device: str = Field(description="flash or memory")
    mode: str = Field("split", description="of flash: split, combined or stateless")
    executable: str
    executable_format: str = "raw"
    nvram_template: str | None = None
    interface_types: list[str] = []
    machines: list[str] = Field(default=[], description="patterns of machine types for x86_64")
    features: list[str] = []


class CgroupFacts(_Facts):
    """The cgroup of this process, as far as it limits memory."""

    version: int = Field(0, description="2, 1 (memory is in the old hierarchy), or 0: no memory controller")
    path: str = Field("", description="folder of the cgroup that this process is in")
    limit: int | None = Field(None, description="smallest memory.max from here to the root, bytes; null: none")
    limited_by: str = Field("", description="the file that says so")
    parent: str = Field("", description="cgroup v2 folder where this user may make one with a memory limit, or empty")
    parent_problem: str = Field("", description="why there is none")
    systemd: Literal["", "system", "user"] = Field("", description="the systemd that makes scopes for this user")


class MemoryFacts(_Facts):
    """Memory and the limits on locking it."""

    total: int = Field(0, description="bytes")
    available: int = Field(0, description="bytes")
    swap: int = Field(0, description="bytes of swap space")
    hugepages_free: dict[str, int] = Field(default={}, description="page size such as 2M -> free pages")
    hugepages_total: dict[str, int] = Field(default={}, description="page size such as 2M -> pages, free or used")
    nodes: dict[str, dict[str, int]] = Field(
        default={}, description="NUMA node number -> free pages by size such as 2M, and free bytes as free"
    )
    cgroup: CgroupFacts = CgroupFacts()
    memlock_soft: int | None = Field(None, description="RLIMIT_MEMLOCK in bytes; null: unlimited")
    memlock_hard: int | None = None
    stack: int = Field(8 << 20, description="bytes of a thread's stack, from RLIMIT_STACK")
    can_set_limits: bool = Field(False, description="CAP_SYS_RESOURCE: limits can be raised for another user, too")
    can_raise_memlock: bool = Field(False, description="CAP_SYS_RESOURCE or CAP_IPC_LOCK")


class SevStatus(_Facts):
    """The answer to SEV_PLATFORM_STATUS: linux/psp-sev.h, struct sev_user_data_status."""

    api_major: int
    api_minor: int
    build: int
    state: int = Field(description="0 uninit, 1 init, 2 working")
    es: bool = Field(description="initialised for SEV-ES")
    guests: int = Field(description="guests that the secure processor knows")


class SnpStatus(_Facts):
    """The answer to SNP_PLATFORM_STATUS: linux/psp-sev.h, struct sev_user_data_snp_status."""

    api_major: int
    api_minor: int
    build: int
    state: int = Field(description="0 uninit, 1 init")
    rmp_initialized: bool
    guests: int
    current_tcb: int = Field(description="TCB_VERSION of the firmware that runs")
    reported_tcb: int = Field(description="TCB_VERSION in attestation reports")


class AsidPool(_Facts):
    """The ASIDs of one kind, from the misc cgroup."""

    capacity: int
    used: int


class FirmwareImage(_Facts):
    """What an OVMF image has for encrypted guests."""

    path: str
    error: str = Field("", description="why it could not be read, or is damaged")
    es_reset_vector: int | None = Field(None, description="where the other vCPUs of a SEV-ES guest start")
    hashes_table: bool = Field(False, description="a place for the hashes of a measured direct boot")
    secret_area: bool = Field(False, description="a place for the guest owner's secret")
    snp_metadata: bool = Field(False, description="the list of pages that a SNP launch prepares")

    def lacks_for(self, guest_type: str, *, kernel_hashes: bool = False) -> str:
        """What the image lacks for a guest of this type, or nothing."""
        needed = {
            "SEV-ES reset vector": self.es_reset_vector is not None or guest_type not in ("sev-es", "sev-snp"),
            "SNP metadata": self.snp_metadata or guest_type != "sev-snp",
            "table of hashes for kernel_hashes": self.hashes_table or not kernel_hashes,
        }
        lacking = [name for name, fine in needed.items() if not fine]
        return f"it has no {' and no '.join(lacking)}" if lacking else ""


class Setting(_Facts):
    """A kernel parameter or module option that has to do with SEV."""

    where: str
    text: str


class PlatformFacts(_Facts):
    """What only `sevlaunch doctor` looks at, around KVM and the secure processor."""

    sev: SevStatus | None = None
    sev_problem: str = Field("", description="why the secure processor did not tell its status")
    snp: SnpStatus | None = None
    snp_problem: str = ""
    kvm_api: int | None = Field(None, description="KVM_GET_API_VERSION; null: not asked")
    kvm_vm_types: int | None = Field(None, description="KVM_CAP_VM_TYPES, a bit for each type of VM; null: not told")
    asids: dict[str, AsidPool] = Field(default={}, description="sev and sev_es, from the misc cgroup where it is on")
    iommu_table: str = Field("", description="IVRS (AMD) or DMAR (Intel), if the BIOS has such a table")
    iommu_groups: int = 0
    kernel_log: list[str] | None = Field(
        None, description="lines about SEV, SNP, the ccp and the IOMMU; null: not read"
    )
    kernel_log_problem: str = ""
    settings: list[Setting] = Field(default=[], description="from the kernel's command line and /etc/modprobe.d")
    syscfg: int | None = Field(None, description="MSR 0xC0010010; null: not read")
    syscfg_problem: str = ""
    container: str = Field("", description="the kind of container that this is, or empty")
    seccomp_actions: list[str] = Field(default=[], description="/proc/sys/kernel/seccomp/actions_avail")
    devices: list[Device] = Field(default=[], description="/dev/net/tun, /dev/vhost-net, /dev/vhost-vsock")
    images: list[FirmwareImage] = Field(default=[], description="the images that firmware descriptors name")


class Folders(_Facts):
    """Where this user's guests have their files."""

    runtime: str = Field(description="running guests: sockets, locks, logs")
    state: str = Field(description="what outlives a guest: its NVRAM")


class Host(_Facts):
    """Everything about a machine that a plan depends on."""

    schema_version: int = Field(SCHEMA, alias="schema", description="version of this format")
    hostname: str = ""
    kernel: str = ""
    architecture: str = "x86_64"
    user: str = ""
    cpu: CpuFacts = CpuFacts()
    kvm: KvmFacts = KvmFacts()
    qemu: QemuFacts | None = None
    qemu_problem: str = Field("", description="why there are no facts about QEMU")
    firmware: list[FirmwareDescriptor] = []
    firmware_problems: list[str] = Field(default=[], description="descriptors that could not be read")
    memory: MemoryFacts = MemoryFacts()
    platform: PlatformFacts | None = Field(None, description="null: not looked at")
    folders: Folders

    @classmethod
    def probe(cls, qemu_binary: str = "auto", *, runtime: Path | None = None, state: Path | None = None) -> Host:
        """This machine; as :func:`sevlaunch.host.probe.probe_host`."""
        # The probes import this module.
        from sevlaunch.host.probe import probe_host

        return probe_host(qemu_binary, runtime=runtime, state=state)

    @classmethod
    def load(cls, path: Path | str) -> Host:
        """A saved host; as :func:`load_host`."""
        return load_host(Path(path))

    def to_json(self) -> str:
        """The host as JSON, for :func:`load_host`."""
        return self.model_dump_json(indent=2, by_alias=True)


def load_host(path: Path) -> Host:
    """The host saved in the file ``path``.

    :raise HostError: when it can't be read, is no saved host, or of another version of the format.
    """
    try:
        host = Host.model_validate_json(path.read_bytes())
    except OSError as error:
        raise HostError(
            f"can't read the host file {path}: {error.strerror}", hint=f"save one with: sevlaunch host > {path.name}"
        ) from error
    except ValidationError as error:
        problems = [
            Problem(details["msg"], path=".".join(str(part) for part in details["loc"]))
            for details in error.errors(include_url=False)
        ]
        raise HostError(
            f"{path} is no host saved by `sevlaunch host`", problems=problems[:10], hint="save it again"
        ) from error
    if host.schema_version != SCHEMA:
        raise HostError(
            f"{path} has version {host.schema_version} of the format, this sevlaunch reads {SCHEMA}",
            hint="save it again with this version: sevlaunch host > HOST.json",
        )
    return host
