"""The host: what a machine offers, as plain data that can be saved as JSON and loaded on another machine."""

# No postponed annotations: to evaluate them takes msgspec longer than to read a saved host.
import os
from collections.abc import Iterable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import msgspec
from msgspec import field
from msgspec.structs import replace

from sevlaunch.documents import decode
from sevlaunch.errors import HostError
from sevlaunch.host.facts import (
    BootFacts,
    CpuFacts,
    Distribution,
    Facts,
    Folders,
    HelperFacts,
    ImageFacts,
    IoUringFacts,
    KvmFacts,
    MemoryFacts,
    PlatformFacts,
    QemuFacts,
    VerityFacts,
)
from sevlaunch.host.firmware_facts import FirmwareDescriptor, FirmwareImage
from sevlaunch.host.folders import images_folder, runtime_folder, state_folder
from sevlaunch.opening import open_given

if TYPE_CHECKING:
    from sevlaunch.host.system import System

SCHEMA = 1
# A thousand times what a saved host has.
MAX_BYTES = 64 << 20


def boot_of(kernel: str | None, boot_image: str | None) -> BootFacts | None:
    """What a direct boot starts, as :meth:`Host.probe` is told; None where there is none."""
    if kernel is None and boot_image is None:
        return None
    # Most guests boot from their disks.
    from sevlaunch.host.boot import boot_facts, kernel_facts

    return boot_facts(boot_image) if boot_image is not None else kernel_facts(kernel or "")


class Host(Facts, frozen=True, kw_only=True):
    """Everything about a machine that a plan depends on."""

    schema_version: int = field(name="schema", default=SCHEMA)  # version of this format
    hostname: str = ""
    kernel: str = ""
    architecture: str = "x86_64"
    user: str = ""
    cpu: CpuFacts = CpuFacts()
    kvm: KvmFacts = KvmFacts()
    qemu: QemuFacts | None = None
    qemu_problem: str = ""  # why there are no facts about QEMU
    firmware: list[FirmwareDescriptor] = field(default_factory=list)
    firmware_problems: list[str] = field(default_factory=list)  # descriptors that could not be read
    # the images that descriptors and the profile name, and well-known ones
    firmware_images: list[FirmwareImage] = field(default_factory=list)
    distribution: Distribution = Distribution()
    memory: MemoryFacts = MemoryFacts()
    io_uring: IoUringFacts | None = None  # null: not looked at
    platform: PlatformFacts | None = None  # null: not looked at
    images: dict[str, ImageFacts] = field(default_factory=dict)  # images of disks that were looked at, by path or entry
    boot: BootFacts | None = None  # what a profile's direct boot starts; null: not looked at
    verity: VerityFacts | None = None  # the hash tree of a profile's root; null: none
    helpers: dict[str, HelperFacts] = field(default_factory=dict)  # helper programs that were asked, by their name
    folders: Folders
    saved: bool = False  # these facts were read from a file, not from the machine now

    @classmethod
    def probe(
        cls,
        qemu_binary: str = "auto",
        *,
        runtime: Path | None = None,
        state: Path | None = None,
        system: "System | None" = None,
        thorough: bool = False,
        ordinary: bool = False,
        images: Iterable[str] = (),
        verity: tuple[str, str | None] | None = None,
        helpers: Iterable[str] = (),
        firmware: Iterable[str] = (),
        kernel: str | None = None,
        boot_image: str | None = None,
        io_uring: bool = False,
    ) -> "Host":
        """What this machine offers. A missing QEMU is noted, not raised: a plan needs it, a look at the host does not.

        :param qemu_binary: the QEMU to ask, or ``auto``.
        :param runtime: the folder of running guests instead of the user's own.
        :param state: the folder of what outlives them instead of the user's own.
        :param system: another machine's recording instead of this machine.
        :param thorough: look at what only the doctor wants to know, too.
        :param ordinary: leave out what only an encrypted guest depends on, or one that insists on KVM: CPUID, and the
            parameters of KVM's modules.
        :param images: disks' images to look into: paths, and entries of the cache of fetched ones.
        :param verity: the disk whose hash tree is looked at, and the one that has the tree (None: appended).
        :param helpers: names of helper programs to ask for their options, such as virtiofsd.
        :param firmware: paths of firmware, and of its variables, to look into beside what the host describes.
        :param kernel: the kernel of a direct boot, to look into.
        :param boot_image: the image that one is taken from: a path, or an entry of the cache of fetched ones.
        :param io_uring: ask the kernel whether there is io_uring for this user, which disks with that aio take.
        """
        # A saved host needs none of the probes, and most commands not all of them.
        from sevlaunch.host import memory, processor, qemu
        from sevlaunch.host.devices import kvm_facts, user_name
        from sevlaunch.host.distribution import distribution_of
        from sevlaunch.host.firmware import UNDESCRIBED, folders, read_descriptors
        from sevlaunch.host.ovmf import firmware_images
        from sevlaunch.host.system import System

        system = system or System()
        qemu_facts, qemu_problem = None, ""
        try:
            qemu_facts = qemu.qemu_facts(qemu.find_binary(qemu_binary))
        except HostError as error:
            qemu_problem = error.message
        descriptors, firmware_problems = read_descriptors([system.path(str(folder)) for folder in folders()])
        machine = os.uname()
        platform_facts, ring = None, None
        if io_uring or thorough:
            from sevlaunch.host.io_uring import io_uring_facts

            ring = io_uring_facts(system)
        if thorough:
            from sevlaunch.host import platform

            platform_facts = platform.platform_facts(system)
        return cls(
            hostname=machine.nodename,
            kernel=system.text("/proc/sys/kernel/osrelease") or machine.release,
            architecture=machine.machine,
            user=user_name(os.geteuid()),
            cpu=processor.cpu_facts(system, ordinary=ordinary),
            kvm=kvm_facts(system, ordinary=ordinary),
            qemu=qemu_facts,
            qemu_problem=qemu_problem,
            firmware=descriptors,
            firmware_problems=firmware_problems,
            firmware_images=firmware_images(system, descriptors, (*firmware, *UNDESCRIBED)),
            distribution=distribution_of(system),
            memory=memory.memory_facts(system),
            io_uring=ring,
            platform=platform_facts,
            images=_images_at(tuple(images)),
            boot=boot_of(kernel, boot_image),
            verity=verity_of(verity),
            helpers=_helpers_here(tuple(helpers)),
            folders=Folders(
                runtime=str((runtime or runtime_folder()).absolute()),
                state=str((state or state_folder()).absolute()),
                images=str(images_folder()),
            ),
        )

    def with_boot(self, kernel: str | None, boot_image: str | None) -> "Host":
        """These facts, with those of a direct boot, whose files are on this machine; as for :meth:`probe`."""
        return replace(self, boot=boot_of(kernel, boot_image))

    def with_verity(self, verity: tuple[str, str | None] | None) -> "Host":
        """These facts, with those of a root's hash tree, whose images are on this machine; as for :meth:`probe`."""
        return replace(self, verity=verity_of(verity))

    def firmware_image(self, path: str) -> FirmwareImage | None:
        """What the image or variable store at ``path`` is; None where nobody looked, or it is not there."""
        return next((image for image in self.firmware_images if image.path == path), None)

    @classmethod
    def load(cls, path: Path | str) -> "Host":
        """The host saved in the file ``path``.

        :raise HostError: when it can't be read, is no saved host, or of another version of the format.
        """
        path = Path(path)
        try:
            with open_given(path) as stream:
                host = decode(stream.read(MAX_BYTES), cls)
        except OSError as error:
            raise HostError(
                f"can't read the host file {path}: {error.strerror}",
                hint=f"save one with: sevlaunch host > {quote(path.name)}",
            ) from error
        except ValueError as error:
            raise HostError(f"{path} is no host saved by `sevlaunch host`: {error}", hint="save it again") from error
        if host.schema_version != SCHEMA:
            raise HostError(
                f"{path} has version {host.schema_version} of the format, this sevlaunch reads {SCHEMA}",
                hint="save it again with this version: sevlaunch host > HOST.json",
            )
        return replace(host, saved=True)

    def to_json(self) -> str:
        """The host as JSON, for :meth:`load`."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()


def verity_of(verity: tuple[str, str | None] | None) -> VerityFacts | None:
    """The facts of a root's hash tree on this machine, as for :meth:`Host.probe`; None where there is no such root."""
    if verity is None:
        return None
    # Few guests have one.
    from sevlaunch.host.verity import verity_facts

    return verity_facts(*verity)


def _images_at(sources: tuple[str, ...]) -> dict[str, ImageFacts]:
    if not sources:
        return {}
    from sevlaunch.host.images import images_at

    return images_at(sources)


def _helpers_here(names: tuple[str, ...]) -> dict[str, HelperFacts]:
    if not names:
        return {}
    from sevlaunch.host.helpers import helpers_here

    return helpers_here(names)
