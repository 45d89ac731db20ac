"""The host: what a machine offers, as plain data that can be saved as JSON and loaded on another machine."""

from __future__ import annotations

from pathlib import Path

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


class Device(_Facts):
    """A device file, and whether this user can open it for reading and writing."""

    path: str
    exists: bool = False
    mode: str = Field("", description="octal permissions")
    owner: str = ""
    group: str = ""
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


class MemoryFacts(_Facts):
    """Memory and the limits on locking it."""

    total: int = Field(0, description="bytes")
    available: int = Field(0, description="bytes")
    hugepages_free: dict[str, int] = Field(default={}, description="page size such as 2M -> free pages")
    memlock_soft: int | None = Field(None, description="RLIMIT_MEMLOCK in bytes; null: unlimited")
    memlock_hard: int | None = None
    can_raise_memlock: bool = Field(False, description="CAP_SYS_RESOURCE or CAP_IPC_LOCK")


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
