"""The profile: what the user wants, as plain data. No look at the host or at files (but see fields.read_blob)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from sevlaunch.profile.fields import AbsolutePath, Name, Size, auto_or_number, matching
from sevlaunch.profile.model.base import Auto, Model
from sevlaunch.profile.model.board import Clock, FwCfgFile, Smbios, Watchdog
from sevlaunch.profile.model.boot import Boot
from sevlaunch.profile.model.devices import Balloon, Channel, Rng, Share, Tpm, Video
from sevlaunch.profile.model.disks import Disk
from sevlaunch.profile.model.display import Display, NoDisplay
from sevlaunch.profile.model.machine import Cpu, Firmware, Iommu, Memory, NumaNode
from sevlaunch.profile.model.networks import Network, PasstNetwork
from sevlaunch.profile.model.security import NoSecurity, Security

if TYPE_CHECKING:
    from sevlaunch.profile.model.first_boot import Credential, CredentialName, FirstBoot, IgnitionFile
    from sevlaunch.profile.model.initdata import InitData

_FIRST_BOOT, _INITDATA = (f"sevlaunch.profile.model.{name}" for name in ("first_boot", "initdata"))
_UUID, _A_UUID = r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "a UUID such as those of uuidgen"
_MACHINES = "q35, or a versioned name such as pc-q35-7.2"
_USER = r"[A-Za-z_][A-Za-z0-9_.-]*[$]?"


class Qemu(Model, frozen=True, kw_only=True):
    """The QEMU that runs the guest."""

    binary: Auto | AbsolutePath = "auto"
    extra_args: Annotated[list[str], Meta(description="further arguments, each as one")] = []


class Profile(Model, frozen=True, kw_only=True):
    """A guest, as its user wants it."""

    types_of_few: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("first_boot", "ignition", "credentials"), _FIRST_BOOT),
        "initdata": _INITDATA,
    }

    name: Annotated[Name, Meta(description="name of the guest; default: the file's stem")]
    uuid: Annotated[str, matching(_UUID, "SMBIOS UUID", wanted=_A_UUID)] | None = None
    machine: Annotated[str, matching(r"[A-Za-z0-9][A-Za-z0-9.-]*", _MACHINES, wanted=_MACHINES)] = "q35"
    accel: Literal["auto", "kvm", "tcg"] = "auto"
    smm: Annotated[bool, Meta(description="System Management Mode, which SEV-ES and SNP guests never have")] = True
    cpu: Cpu = Cpu()
    memory: Memory = Memory()
    numa: Annotated[list[NumaNode], Meta(description="NUMA nodes that the guest sees; default: one")] = []
    firmware: Firmware = Firmware()
    security: Security = NoSecurity()
    iommu: Iommu = Iommu()
    iommu_platform: Annotated[
        bool,
        Meta(description="DMA API for all virtio devices, controllers included; can't be off in an encrypted guest"),
    ] = True
    clock: Clock = Clock()
    smbios: Smbios = Smbios()
    fw_cfg: Annotated[list[FwCfgFile], Meta(description="files that firmware and guest read")] = []
    boot: Boot = Boot()
    disks: list[Disk] = []
    first_boot: Annotated[
        FirstBoot | None, Meta(description="a seed for cloud-init: user, keys, files, ...; true: with defaults")
    ] = None
    ignition: Annotated[
        IgnitionFile | None, Meta(description="configuration for Ignition, the first boot of Fedora CoreOS and Flatcar")
    ] = None
    credentials: Annotated[
        dict[CredentialName, Credential], Meta(description="credentials for systemd, by their names")
    ] = {}
    initdata: Annotated[
        InitData | None,
        Meta(description="a document on a read-only disk, whose digest an SNP launch has as its host_data"),
    ] = None
    networks: list[Network] = []
    rng: Annotated[Rng | None, Meta(description="a random number generator; false: none")] = Rng()
    balloon: Annotated[Balloon | None, Meta(description="a memory balloon; true: with defaults")] = None
    video: Video = Video()
    display: Display = NoDisplay()
    console: Annotated[Literal["serial", "virtio", "none"], Meta(description="where the guest's console is")] = "serial"
    console_log: Annotated[
        Size,
        Meta(ge=64 << 10, description="how much of the console's output is kept, on disk, after the guest's end too"),
    ] = 16 << 20
    console_journal: Annotated[
        bool,
        Meta(description="send each line of the console to systemd's journal, too: journalctl SEVLAUNCH_GUEST=NAME"),
    ] = False
    vsock: Annotated[
        Annotated[int | Auto, *auto_or_number(3, (1 << 32) - 2)] | None,
        Meta(description="context ID of a vsock device; auto: derived from the guest's name"),
    ] = None
    serial_ports: Annotated[
        int, Meta(ge=0, le=3, description="serial ports beside the console: COM2 to COM4, with sockets of their own")
    ] = 0
    watchdog: Annotated[Watchdog | None, Meta(description="a watchdog; true: with defaults")] = None
    panic: Annotated[
        bool, Meta(description="a device by which the guest's kernel tells that it gave up; see on_crash")
    ] = False
    guest_agent: Annotated[bool, Meta(description="a channel for the QEMU guest agent")] = False
    channels: list[Channel] = []
    tpm: Annotated[Tpm | None, Meta(description="a TPM that swtpm emulates; true: with defaults")] = None
    shares: list[Share] = []
    on_reboot: Annotated[
        Literal["relaunch", "stop"],
        Meta(description="what a reboot of the guest does; relaunch: the guest comes up again"),
    ] = "relaunch"
    on_crash: Annotated[
        Literal["stop", "relaunch", "keep"],
        Meta(
            description="what `up --foreground` does when the guest can't go on: its system gave up, KVM can't run its "
            "code, a disk fails; keep: leave it as it is, to be looked at"
        ),
    ] = "stop"
    run_as: (
        Annotated[
            str, matching(_USER, "user that QEMU runs as when root starts the guest", wanted="the name of a user")
        ]
        | None
    ) = None
    qemu: Qemu = Qemu()

    @property
    def helpers(self) -> tuple[str, ...]:
        """The helper programs whose options depend on their version."""
        # That of Debian 12 writes its help into the system's log: it is asked only where that decides.
        return (*(("virtiofsd",) if self.shares else ()), *(("passt",) if self._maps_by_passt else ()))

    @property
    def shares_memory(self) -> bool:
        """Whether a helper program maps the guest's memory."""
        return bool(self.shares) or self._maps_by_passt

    @property
    def _maps_by_passt(self) -> bool:
        return any(isinstance(network, PasstNetwork) and network.vhost_user for network in self.networks)

    @property
    def has_fetched_images(self) -> bool:
        """Whether it names an image by a name of the catalogue, or by URL."""
        return any(disk.is_fetched for disk in self.disks)

    @property
    def boot_image(self) -> str | None:
        """The image that is booted from without a boot loader: its path, or its entry in the cache."""
        index = self.boot.from_index
        return self.disks[index].source if index is not None and index < len(self.disks) else None

    @property
    def uses_io_uring(self) -> bool:
        """Whether QEMU reads or writes a disk by the kernel's io_uring."""
        return any(disk.aio == "io_uring" for disk in self.disks)

    @property
    def images(self) -> tuple[str, ...]:
        """The paths of all disks' images."""
        return tuple(disk.source for disk in self.disks if disk.path or disk.image)

    @property
    def verity(self) -> tuple[str, str | None] | None:
        """The sources of the root's disk and of the one with its hash tree (None: appended); None: it has no tree."""
        said = self.boot.verity
        if said is None:
            return None
        data, hashes = (self.disks[number] for number in (said.data_disk, said.hash_disk))
        return data.source, None if hashes is data else hashes.source
