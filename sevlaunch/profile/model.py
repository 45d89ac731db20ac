"""The profile: what the user wants, as plain data. No look at the host or at files (but see fields.read_blob)."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from sevlaunch.profile.fields import (
    AbsolutePath,
    DhCert,
    Forward,
    GuestVisibleWorkarounds,
    HostData,
    IdAuth,
    IdBlock,
    Session,
    SevPolicyValue,
    Size,
    SnpPolicyValue,
    auto_or_number,
)
from sevlaunch.profile.policy import default_policy

Auto = Literal["auto"]
GuestType = Literal["none", "sev", "sev-es", "sev-snp"]
Cbitpos = Annotated[int | Auto, auto_or_number(32, 63)]
ReducedPhysBits = Annotated[int | Auto, auto_or_number(1, 63)]

_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cpu(_Model):
    """Virtual CPUs."""

    model: str = Field(
        "auto",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="QEMU CPU model; auto: EPYC for encrypted guests, the host's CPU with KVM, max with TCG",
    )
    count: int = Field(1, ge=1, le=4096, description="number of vCPUs")
    sockets: int | None = Field(None, ge=1)
    cores: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    features: list[Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9._-]*=[A-Za-z0-9._-]+$")]] = Field(
        default=[], description="CPU properties such as host-phys-bits=on"
    )


class Memory(_Model):
    """Guest memory."""

    size: Size = Field(1 << 30, description="size of guest memory")
    lock: bool | Auto = Field("auto", description="keep memory from being swapped; auto: on for SEV and SEV-ES")
    hugepages: Literal["2M", "1G"] | None = Field(None, description="back memory with huge pages of this size")
    prealloc: bool | Auto = Field("auto", description="fill memory at the start; auto: when locked or on huge pages")
    hard_limit: Size | Auto | None = Field(
        None, description="memory limit of the QEMU process (memory.max of its cgroup); auto: what it can take, counted"
    )
    nodes: list[Annotated[int, Field(ge=0, lt=1024)]] = Field(
        default=[], description="NUMA nodes of the host that the memory comes from"
    )


class Firmware(_Model):
    """UEFI firmware: a pflash pair (code, vars) or one stateless image; neither: chosen from firmware descriptors."""

    code: AbsolutePath | None = Field(None, description="read-only firmware code for pflash unit 0")
    vars: AbsolutePath | None = Field(None, description="variable store that each guest's own copy starts from")
    nvram: AbsolutePath | None = Field(
        None, description="the guest's own variable store; default: a file in sevlaunch's state folder"
    )
    image: AbsolutePath | None = Field(None, description="stateless firmware image with code and variables in one")
    secure_boot: bool | None = Field(None, description="choose a described firmware that boots signed systems alone")


class NoSecurity(_Model):
    """An ordinary guest."""

    type: Literal["none"] = "none"


class _SevCommon(_Model):
    cbitpos: Cbitpos = Field("auto", description="position of the C-bit in a page table entry; auto: the host's")
    reduced_phys_bits: ReducedPhysBits = Field(
        "auto", description="physical address bits that the guest loses; auto: 1"
    )
    kernel_hashes: bool = Field(False, description="measure kernel, initrd and command line of a direct boot")
    sev_device: AbsolutePath = Field("/dev/sev", description="device of the secure processor")


class SevSecurity(_SevCommon):
    """A SEV or SEV-ES guest: the properties of QEMU's sev-guest object."""

    type: Literal["sev", "sev-es"]
    policy: SevPolicyValue | None = Field(
        None, description="guest policy; default: no-debug, no-key-sharing, domain, sev (and es for sev-es)"
    )
    dh_cert: DhCert | None = Field(None, description="the guest owner's Diffie-Hellman certificate")
    session: Session | None = Field(None, description="the guest owner's launch session")
    handle: int | None = Field(None, ge=0, lt=1 << 32, description="firmware handle of a guest to share the key with")
    legacy_vm_type: bool | Auto | None = Field(
        None, description="use KVM_SEV_INIT or KVM_SEV_ES_INIT instead of KVM_SEV_INIT2 (QEMU 9.1 and newer)"
    )

    @property
    def effective_policy(self) -> int:
        """The policy, or the default for the type."""
        return default_policy(self.type) if self.policy is None else self.policy


class SnpSecurity(_SevCommon):
    """A SEV-SNP guest: the properties of QEMU's sev-snp-guest object."""

    type: Literal["sev-snp"]
    policy: SnpPolicyValue | None = Field(None, description="guest policy; default: QEMU's own, 0x30000")
    guest_visible_workarounds: GuestVisibleWorkarounds | None = None
    id_block: IdBlock | None = None
    id_auth: IdAuth | None = None
    host_data: HostData | None = None
    author_key_enabled: bool = Field(False, description="id_auth contains an author key")
    vcek_disabled: bool = Field(False, description="the guest can't have reports signed by the VCEK")

    @property
    def effective_policy(self) -> int:
        """The policy, or the default."""
        return default_policy(self.type) if self.policy is None else self.policy


Security = Annotated[NoSecurity | SevSecurity | SnpSecurity, Field(discriminator="type")]


class Boot(_Model):
    """What the firmware boots."""

    kernel: AbsolutePath | None = Field(None, description="Linux kernel for a direct boot")
    initrd: AbsolutePath | None = None
    cmdline: str | None = Field(None, description="kernel command line")
    order: list[Annotated[str, Field(pattern=r"^(disk|net)\d+$")]] = Field(
        default=[], description="devices in the order of booting, such as disk0, net0"
    )


class Disk(_Model):
    """A disk or CD-ROM."""

    path: AbsolutePath = Field(description="image file, or a block device under /dev")
    format: Literal["raw", "qcow2"] | None = Field(None, description="default: qcow2 for *.qcow2, else raw")
    bus: Literal["virtio-blk", "virtio-scsi", "sata", "ide"] = "virtio-blk"
    read_only: bool = False
    cdrom: bool = False
    serial: str | None = Field(None, min_length=1, description="serial number that the guest sees")
    cache: Literal["writeback", "none", "writethrough", "directsync", "unsafe"] = "writeback"
    discard: bool = Field(True, description="pass the guest's discards on to the image")
    iommu_platform: bool = Field(True, description="DMA API; can't be off in an encrypted guest")

    @property
    def effective_format(self) -> str:
        """The format, or the one that the file's name tells."""
        return self.format or ("qcow2" if self.path.endswith(".qcow2") else "raw")

    @field_validator("serial")
    @classmethod
    def _fits_every_bus(cls, serial: str | None) -> str | None:
        # VIRTIO_BLK_ID_BYTES; QEMU cuts the rest off silently.
        if serial is not None and len(serial.encode()) > 20:
            raise PydanticCustomError(
                "profile", "wanted at most 20 bytes, found {count}", {"count": len(serial.encode())}
            )
        return serial


class _Network(_Model):
    mac: str | None = Field(None, description="default: derived from the guest's name")
    iommu_platform: bool = Field(True, description="DMA API; can't be off in an encrypted guest")

    @field_validator("mac")
    @classmethod
    def _is_unicast(cls, mac: str | None) -> str | None:
        if mac is not None and (not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1):
            raise PydanticCustomError(
                "profile", "wanted a unicast MAC address such as 52:54:00:12:34:56, found {mac}", {"mac": repr(mac)}
            )
        return mac.lower() if mac else None


class UserNetwork(_Network):
    """QEMU's own user-mode network: needs no privileges."""

    type: Literal["user"]
    forward: list[Forward] = Field(default=[], description="host ports that lead into the guest")
    restrict: bool = Field(False, description="cut the guest off from the host and the outside")


class TapNetwork(_Network):
    """A tap interface that exists already."""

    type: Literal["tap"]
    interface: str = Field(pattern=r"^[^\s/:]{1,15}$", description="name of the tap interface")
    vhost: bool = False


class BridgeNetwork(_Network):
    """A tap interface on a bridge, made by qemu-bridge-helper."""

    type: Literal["bridge"]
    bridge: str = Field(pattern=r"^[^\s/:]{1,15}$", description="name of the bridge")


class PasstNetwork(_Network):
    """The user-mode network of passt, started with the guest."""

    type: Literal["passt"]
    forward: list[Forward] = Field(default=[], description="host ports that lead into the guest")


Network = Annotated[UserNetwork | TapNetwork | BridgeNetwork | PasstNetwork, Field(discriminator="type")]


class Rng(_Model):
    """virtio-rng."""

    source: AbsolutePath = Field("/dev/urandom", description="host device that the random numbers come from")
    iommu_platform: bool = Field(True, description="DMA API; can't be off in an encrypted guest")


class Balloon(_Model):
    """virtio-balloon."""

    iommu_platform: bool = Field(True, description="DMA API; can't be off in an encrypted guest")


class Video(_Model):
    """A graphics card."""

    type: Literal["none", "std", "qxl", "virtio"] = "none"
    ram: Size | None = Field(None, description="qxl: size of the primary bar")
    vram: Size | None = Field(None, description="qxl: size of the secondary bar; std: video memory")
    vgamem: Size | None = Field(None, description="qxl: size of the framebuffer")
    heads: int = Field(1, ge=1, le=16, description="qxl and virtio: number of outputs")


class Share(_Model):
    """A folder of the host, shared through virtiofs."""

    path: AbsolutePath
    tag: str = Field(pattern=r"^[A-Za-z0-9._-]{1,36}$", description="name to mount it by in the guest")


class Qemu(_Model):
    """The QEMU that runs the guest."""

    binary: Auto | AbsolutePath = Field("auto", union_mode="left_to_right")
    extra_args: list[str] = Field(default=[], description="further arguments, each as one")


class Profile(_Model):
    """A guest, as its user wants it."""

    name: str = Field(description="name of the guest; default: the file's stem")
    uuid: str | None = Field(
        None, pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", description="SMBIOS UUID"
    )
    machine: str = Field(
        "q35", pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$", description="q35, or a versioned name such as pc-q35-7.2"
    )
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    firmware: Firmware = Firmware()
    security: Security = NoSecurity()
    boot: Boot = Boot()
    disks: list[Disk] = []
    networks: list[Network] = []
    rng: Rng | None = Field(Rng(), description="a random number generator; false: none")
    balloon: Balloon | None = Field(None, description="a memory balloon; true: with defaults")
    video: Video = Video()
    console: Literal["serial", "virtio", "none"] = Field("serial", description="where the guest's console is")
    vsock: Annotated[int | Auto, auto_or_number(3, (1 << 32) - 2)] | None = Field(
        None, description="context ID of a vsock device; auto: derived from the guest's name"
    )
    guest_agent: bool = Field(False, description="a channel for the QEMU guest agent")
    shares: list[Share] = []
    on_reboot: Literal["relaunch", "stop"] = Field(
        "relaunch", description="what a reboot of the guest does; relaunch: the guest comes up again"
    )
    run_as: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*[$]?$", description="user that QEMU runs as when root starts the guest"
    )
    qemu: Qemu = Qemu()

    @field_validator("name")
    @classmethod
    def _is_one_folder_name(cls, name: str) -> str:
        # The name is a folder's name, and is printed in tables.
        if not name or name[0] in ".-" or "/" in name or not name.isprintable() or len(name.encode()) > 64:
            raise PydanticCustomError(
                "profile",
                "wanted 1 to 64 bytes of printable text without '/', not starting with '.' or '-', found {name}",
                {"name": repr(name)},
            )
        return name
