"""The profile: what the user wants, as plain data. No look at the host or at files (but see fields.read_blob)."""

# No postponed annotations: profile.reading looks at them, and to evaluate them takes longer than all else there.
from typing import Annotated, Literal

from msgspec import Meta, Struct

from sevlaunch.documents import matching
from sevlaunch.guest_type import GuestType, Protection
from sevlaunch.profile.fields import (
    AbsolutePath,
    CpuFeature,
    DhCert,
    DiskSerial,
    Forward,
    GuestVisibleWorkarounds,
    HostData,
    IdAuth,
    IdBlock,
    ImagePath,
    Mac,
    Name,
    Placeholder,
    Session,
    SevPolicyValue,
    Size,
    SnpPolicyValue,
    auto_or_number,
)
from sevlaunch.profile.policy import default_policy

Auto = Literal["auto"]
_INTERFACE, _INTERFACE_NAME = r"[^\s/:]{1,15}", "the name of a network interface, at most 15 characters"
_TAG_NAME = "1 to 36 letters, digits, dots, dashes and underscores"
_UUID, _A_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "a UUID such as those of uuidgen"
_MACHINES = "q35, or a versioned name such as pc-q35-7.2"
_USER = r"[A-Za-z_][A-Za-z0-9_.-]*[$]?"
Cbitpos = Annotated[int | Auto, *auto_or_number(32, 63)]
ReducedPhysBits = Annotated[int | Auto, *auto_or_number(1, 63)]


class Model(Struct, frozen=True, kw_only=True):
    """A mapping of a profile."""


class Cpu(Model, frozen=True, kw_only=True):
    """Virtual CPUs."""

    model: Annotated[
        str,
        matching(
            r"[A-Za-z0-9][A-Za-z0-9._-]*",
            "QEMU CPU model; auto: EPYC for encrypted guests, the host's CPU with KVM, max with TCG",
            wanted="the name of a CPU model such as EPYC-v4, with its flags in cpu.features",
        ),
    ] = "auto"
    count: Annotated[int, Meta(ge=1, le=4096, description="number of vCPUs")] = 1
    sockets: Annotated[int, Meta(ge=1)] | None = None
    cores: Annotated[int, Meta(ge=1)] | None = None
    threads: Annotated[int, Meta(ge=1)] | None = None
    features: Annotated[
        list[CpuFeature],
        Meta(description="CPU properties such as host-phys-bits=on"),
    ] = []


class Memory(Model, frozen=True, kw_only=True):
    """Guest memory."""

    size: Annotated[Size, Meta(description="size of guest memory")] = 1 << 30
    lock: Annotated[bool | Auto, Meta(description="keep memory from being swapped; auto: on for SEV and SEV-ES")] = (
        "auto"
    )
    hugepages: Annotated[Literal["2M", "1G"] | None, Meta(description="back memory with huge pages of this size")] = (
        None
    )
    prealloc: Annotated[
        bool | Auto, Meta(description="fill memory at the start; auto: when locked or on huge pages")
    ] = "auto"
    hard_limit: Annotated[
        Size | Auto | None,
        Meta(
            description="memory limit of the QEMU process (memory.max of its cgroup); auto: what it can take, counted"
        ),
    ] = None
    nodes: Annotated[
        list[Annotated[int, Meta(ge=0, lt=1024)]], Meta(description="NUMA nodes of the host that the memory comes from")
    ] = []


class Firmware(Model, frozen=True, kw_only=True):
    """UEFI firmware: a pflash pair (code, vars) or one stateless image; neither: chosen from firmware descriptors."""

    code: Annotated[AbsolutePath | None, Meta(description="read-only firmware code for pflash unit 0")] = None
    vars: Annotated[AbsolutePath | None, Meta(description="variable store that each guest's own copy starts from")] = (
        None
    )
    nvram: Annotated[
        AbsolutePath | None,
        Meta(description="the guest's own variable store; default: a file in sevlaunch's state folder"),
    ] = None
    image: Annotated[
        AbsolutePath | None, Meta(description="stateless firmware image with code and variables in one")
    ] = None
    secure_boot: Annotated[
        bool | None, Meta(description="choose a described firmware that boots signed systems alone")
    ] = None


class _Security(Model, Protection, frozen=True, kw_only=True):
    @property
    def measures_boot(self) -> bool:
        """Kernel, initrd and command line of a direct boot are in the launch measurement."""
        return False

    @property
    def wants_attestation(self) -> bool:
        """Somebody is going to verify the launch."""
        return self.measures_boot

    @property
    def init2(self) -> bool | None:
        """Whether KVM_SEV_INIT2 is to start the guest, or an older ioctl; None: not said."""
        return None


class NoSecurity(_Security, frozen=True, kw_only=True):
    """An ordinary guest."""

    type: Literal["none"] = "none"

    @property
    def guest_type(self) -> GuestType:
        """None of the encrypted ones."""
        return GuestType.NONE


class _SevCommon(_Security, frozen=True, kw_only=True):
    cbitpos: Annotated[Cbitpos, Meta(description="position of the C-bit in a page table entry; auto: the host's")] = (
        "auto"
    )
    reduced_phys_bits: Annotated[
        ReducedPhysBits, Meta(description="physical address bits that the guest loses; auto: 1")
    ] = "auto"
    kernel_hashes: Annotated[bool, Meta(description="measure kernel, initrd and command line of a direct boot")] = False
    sev_device: Annotated[AbsolutePath, Meta(description="device of the secure processor")] = "/dev/sev"

    @property
    def measures_boot(self) -> bool:
        """As asked for."""
        return self.kernel_hashes


class SevSecurity(_SevCommon, frozen=True, kw_only=True):
    """A SEV or SEV-ES guest: the properties of QEMU's sev-guest object."""

    type: Literal["sev", "sev-es"]
    policy: Annotated[
        SevPolicyValue | None,
        Meta(description="guest policy; default: no-debug, no-key-sharing, domain, sev (and es for sev-es)"),
    ] = None
    dh_cert: Annotated[DhCert | None, Meta(description="the guest owner's Diffie-Hellman certificate")] = None
    session: Annotated[Session | None, Meta(description="the guest owner's launch session")] = None
    handle: (
        Annotated[int, Meta(ge=0, lt=1 << 32, description="firmware handle of a guest to share the key with")] | None
    ) = None
    legacy_vm_type: Annotated[
        bool | Auto | None,
        Meta(description="use KVM_SEV_INIT or KVM_SEV_ES_INIT instead of KVM_SEV_INIT2 (QEMU 9.1 and newer)"),
    ] = None

    @property
    def guest_type(self) -> GuestType:
        """SEV or SEV-ES."""
        return GuestType(self.type)

    @property
    def effective_policy(self) -> int:
        """The policy, or the default for the type."""
        return default_policy(self.guest_type) if self.policy is None else self.policy

    @property
    def wants_attestation(self) -> bool:
        """A session is the owner's own; measuring the boot has a purpose for him alone."""
        return self.session is not None or self.measures_boot

    @property
    def init2(self) -> bool | None:
        """As asked for."""
        return not self.legacy_vm_type if isinstance(self.legacy_vm_type, bool) else None


class SnpSecurity(_SevCommon, frozen=True, kw_only=True):
    """A SEV-SNP guest: the properties of QEMU's sev-snp-guest object."""

    type: Literal["sev-snp"]
    policy: Annotated[SnpPolicyValue | None, Meta(description="guest policy; default: QEMU's own, 0x30000")] = None
    guest_visible_workarounds: GuestVisibleWorkarounds | None = None
    id_block: IdBlock | None = None
    id_auth: IdAuth | None = None
    host_data: HostData | None = None
    author_key_enabled: Annotated[bool, Meta(description="id_auth contains an author key")] = False
    vcek_disabled: Annotated[bool, Meta(description="the guest can't have reports signed by the VCEK")] = False

    @property
    def guest_type(self) -> GuestType:
        """SEV-SNP."""
        return GuestType.SEV_SNP

    @property
    def effective_policy(self) -> int:
        """The policy, or the default."""
        return default_policy(self.guest_type) if self.policy is None else self.policy


Security = NoSecurity | SevSecurity | SnpSecurity


class Boot(Model, frozen=True, kw_only=True):
    """What the firmware boots."""

    kernel: Annotated[AbsolutePath | None, Meta(description="Linux kernel for a direct boot")] = None
    initrd: AbsolutePath | None = None
    cmdline: Annotated[str | None, Meta(description="kernel command line")] = None
    order: Annotated[
        list[
            Annotated[
                str, matching(r"(disk|net)[0-9]+", wanted="a device such as disk0 or net0"), Placeholder("disk999")
            ]
        ],
        Meta(description="devices in the order of booting, such as disk0, net0"),
    ] = []


Bus = Literal["virtio-blk", "virtio-scsi", "sata", "ide"]
Cache = Literal["writeback", "none", "writethrough", "directsync", "unsafe"]
# QEMU's block drivers for the formats of images.
ImageFormat = Literal["raw", "qcow2", "vmdk", "vhdx", "vdi", "vpc"]
_FORMAT_OF_NAME: dict[str, ImageFormat] = {
    "raw": "raw",
    "iso": "raw",
    "qcow2": "qcow2",
    "vmdk": "vmdk",
    "vhdx": "vhdx",
    "vdi": "vdi",
    "vhd": "vpc",
}


class Disk(Model, frozen=True, kw_only=True):
    """A disk or CD-ROM."""

    path: Annotated[ImagePath, Meta(description="image file or block device")]
    format: Annotated[ImageFormat | None, Meta(description="default: what stands in the image")] = None
    bus: Bus = "virtio-blk"
    read_only: bool = False
    cdrom: bool = False
    serial: Annotated[DiskSerial | None, Meta(description="serial number that the guest sees")] = None
    cache: Cache = "writeback"
    discard: Annotated[bool, Meta(description="pass the guest's discards on to the image")] = True
    iommu_platform: Annotated[bool, Meta(description="DMA API; can't be off in an encrypted guest")] = True

    @property
    def named_format(self) -> ImageFormat | None:
        """The format that the file's name promises; None where it promises none (``.img`` may be any)."""
        return _FORMAT_OF_NAME.get(self.path.rpartition(".")[2].lower())


class _Network(Model, frozen=True, kw_only=True):
    mac: Annotated[Mac | None, Meta(description="default: derived from the guest's name")] = None
    iommu_platform: Annotated[bool, Meta(description="DMA API; can't be off in an encrypted guest")] = True


class UserNetwork(_Network, frozen=True, kw_only=True):
    """QEMU's own user-mode network: needs no privileges."""

    type: Literal["user"]
    forward: Annotated[list[Forward], Meta(description="host ports that lead into the guest")] = []
    restrict: Annotated[bool, Meta(description="cut the guest off from the host and the outside")] = False


class TapNetwork(_Network, frozen=True, kw_only=True):
    """A tap interface that exists already."""

    type: Literal["tap"]
    interface: Annotated[str, matching(_INTERFACE, "name of the tap interface", wanted=_INTERFACE_NAME)]
    vhost: bool = False


class BridgeNetwork(_Network, frozen=True, kw_only=True):
    """A tap interface on a bridge, made by qemu-bridge-helper."""

    type: Literal["bridge"]
    bridge: Annotated[str, matching(_INTERFACE, "name of the bridge", wanted=_INTERFACE_NAME)]


class PasstNetwork(_Network, frozen=True, kw_only=True):
    """The user-mode network of passt, started with the guest."""

    type: Literal["passt"]
    forward: Annotated[list[Forward], Meta(description="host ports that lead into the guest")] = []


Network = UserNetwork | TapNetwork | BridgeNetwork | PasstNetwork


class Rng(Model, frozen=True, kw_only=True):
    """virtio-rng."""

    source: Annotated[AbsolutePath, Meta(description="host device that the random numbers come from")] = "/dev/urandom"
    iommu_platform: Annotated[bool, Meta(description="DMA API; can't be off in an encrypted guest")] = True


class Balloon(Model, frozen=True, kw_only=True):
    """virtio-balloon."""

    iommu_platform: Annotated[bool, Meta(description="DMA API; can't be off in an encrypted guest")] = True


class Video(Model, frozen=True, kw_only=True):
    """A graphics card."""

    type: Literal["none", "std", "qxl", "virtio"] = "none"
    ram: Annotated[Size | None, Meta(description="qxl: size of the primary bar")] = None
    vram: Annotated[Size | None, Meta(description="qxl: size of the secondary bar; std: video memory")] = None
    vgamem: Annotated[Size | None, Meta(description="qxl: size of the framebuffer")] = None
    heads: Annotated[int, Meta(ge=1, le=16, description="qxl and virtio: number of outputs")] = 1


class Share(Model, frozen=True, kw_only=True):
    """A folder of the host, shared through virtiofs."""

    path: AbsolutePath
    tag: Annotated[str, matching(r"[A-Za-z0-9._-]{1,36}", "name to mount it by in the guest", wanted=_TAG_NAME)]


class Qemu(Model, frozen=True, kw_only=True):
    """The QEMU that runs the guest."""

    binary: Auto | AbsolutePath = "auto"
    extra_args: Annotated[list[str], Meta(description="further arguments, each as one")] = []


class Profile(Model, frozen=True, kw_only=True):
    """A guest, as its user wants it."""

    name: Annotated[Name, Meta(description="name of the guest; default: the file's stem")]
    uuid: Annotated[str, matching(_UUID, "SMBIOS UUID", wanted=_A_UUID)] | None = None
    machine: Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9.-]*", _MACHINES, wanted=_MACHINES)] = "q35"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    firmware: Firmware = Firmware()
    security: Security = NoSecurity()
    boot: Boot = Boot()
    disks: list[Disk] = []
    networks: list[Network] = []
    rng: Annotated[Rng | None, Meta(description="a random number generator; false: none")] = Rng()
    balloon: Annotated[Balloon | None, Meta(description="a memory balloon; true: with defaults")] = None
    video: Video = Video()
    console: Annotated[Literal["serial", "virtio", "none"], Meta(description="where the guest's console is")] = "serial"
    vsock: Annotated[
        Annotated[int | Auto, *auto_or_number(3, (1 << 32) - 2)] | None,
        Meta(description="context ID of a vsock device; auto: derived from the guest's name"),
    ] = None
    guest_agent: Annotated[bool, Meta(description="a channel for the QEMU guest agent")] = False
    shares: list[Share] = []
    on_reboot: Annotated[
        Literal["relaunch", "stop"],
        Meta(description="what a reboot of the guest does; relaunch: the guest comes up again"),
    ] = "relaunch"
    run_as: (
        Annotated[
            str, matching(_USER, "user that QEMU runs as when root starts the guest", wanted="the name of a user")
        ]
        | None
    ) = None
    qemu: Qemu = Qemu()

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of all disks' images."""
        return tuple(disk.path for disk in self.disks)
