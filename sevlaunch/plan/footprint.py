"""What a QEMU takes of memory, counted piece by piece: for the limit on locking, and for a limit of its cgroup."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from sevlaunch.guest_type import GuestType
from sevlaunch.plan.context import Context
from sevlaunch.profile.model import Disk, Video
from sevlaunch.units import MEBIBYTE, mebibytes

# QEMU's hw/i386/pc_sysfw.c takes at most this much on pflash, and hw/i386/pc.c as max-fw-size.
FIRMWARE = 8 * MEBIBYTE
# pc.rom, kvmvapic, linuxboot and the devices' option ROMs; etc/acpi/tables and its relatives (hw/i386/acpi-build.c).
ROMS = 4 * MEBIBYTE
# Code, libraries and heap. Measured with QEMU 7.2, 10.0 and 11.1: 74 to 101 MiB, and 20 more with spice.
QEMU_ITSELF = 128 * MEBIBYTE
# The least of these.
QEMU_AT_LEAST = 74 * MEBIBYTE
# Besides the vCPUs: RCU, the QMP monitor, a worker, signals.
OTHER_THREADS = 5
# QEMU's include/block/thread-pool.h, THREAD_POOL_MAX_THREADS_DEFAULT: threads of each event loop that read and write
# images.
WORKERS = 64
# accel/tcg/tcg-all.c and tcg/region.c: 1 GiB, or an eighth of the host's memory.
TCG_BUFFER = 1024 * MEBIBYTE
# The process's page tables and the nested ones of KVM: each 8 bytes for 4096.
PAGE_TABLES = 2 * 8 / 4096
# An entry for each page of 4096 bytes in an xarray: nodes of 576 bytes for 64 entries, 56 of them in 32 KiB, and the
# nodes above these. Measured: 9.4 bytes.
RECORD = 10
# Of an SNP guest's page the kernel keeps two: in the page cache of guest_memfd (virt/kvm/guest_memfd.c), and whether it
# is private (virt/kvm/kvm_main.c, kvm_vm_set_mem_attributes()), which QEMU says of all RAM at the start.
PRIVATE_RECORDS = 2 * RECORD / 4096
# What the kernel keeps for the process: sockets, pipes, cached blocks of images that are being written.
KERNEL = 64 * MEBIBYTE

# hw/display: qxl.c, vga-pci.c, virtio-vga.c. Sizes when the profile says none: bar 0, bar 1, framebuffer.
_QXL = (64 * MEBIBYTE, 64 * MEBIBYTE, 16 * MEBIBYTE)
_STD = 16 * MEBIBYTE
_VIRTIO = 8 * MEBIBYTE
# The surface that is drawn to, for each output.
_SURFACE = 8 * MEBIBYTE


class Piece(Struct, frozen=True):
    """One thing that takes ``size`` bytes."""

    name: str
    size: int


class Footprint(Struct, frozen=True):
    """The pieces, and their sum in bytes."""

    pieces: tuple[Piece, ...]

    @property
    def total(self) -> int:
        """The sum in whole MiB, as the pieces are shown."""
        return sum(-(-piece.size // MEBIBYTE) for piece in self.pieces) * MEBIBYTE

    def __str__(self) -> str:
        return f"{mebibytes(self.total)} = " + " + ".join(
            f"{mebibytes(piece.size)} {piece.name}" for piece in self.pieces
        )


def locked(context: Context, accel: str) -> Footprint:
    """What mlockall() of QEMU counts: all that it maps, whether it is used or not. Huge pages are not among it."""
    profile = context.profile
    disk_loops = _loops(profile.disks)
    threads = profile.cpu.count + OTHER_THREADS + len(disk_loops - {None})
    pieces = [
        *_guest(context),
        Piece("QEMU itself", QEMU_ITSELF),
        Piece(f"stacks of {threads} threads", threads * context.host.memory.stack),
        *_translations(context, accel),
    ]
    if disk_loops:
        workers = WORKERS * len(disk_loops)
        pieces.append(Piece(f"stacks of {workers} threads for disks", workers * context.host.memory.stack))
    return Footprint(tuple(pieces))


def _loops(disks: Sequence[Disk]) -> set[str | None]:
    if not disks:
        return set()
    from sevlaunch.profile.io_threads import loops

    return loops(disks)


def pinned(context: Context) -> Footprint:
    """What KVM counts against the same limit for a SEV or SEV-ES guest, huge pages included.

    Source: Linux' arch/x86/kvm/svm/sev.c, sev_pin_memory(); QEMU registers every block of RAM.
    """
    return Footprint((Piece("guest memory", context.profile.memory.size), *_around_memory(context)))


def charged(context: Context, accel: str, lock: bool) -> Footprint:
    """What the memory controller of cgroup v2 charges, at most. Huge pages are not among it."""
    profile = context.profile
    disk_loops = _loops(profile.disks)
    threads = profile.cpu.count + OTHER_THREADS + len(disk_loops - {None}) + WORKERS * len(disk_loops)
    # Unlocked, a stack is as large as it was ever used.
    stack = context.host.memory.stack if lock else MEBIBYTE
    return Footprint(
        (
            *_guest(context),
            Piece("QEMU itself", QEMU_ITSELF),
            Piece(f"stacks of {threads} threads", threads * stack),
            *_translations(context, accel),
            Piece("page tables", int(profile.memory.size * PAGE_TABLES)),
            *_records(context),
            Piece("the kernel's own", KERNEL),
        )
    )


def certain(context: Context) -> Footprint:
    """What a guest that uses all of its memory is charged at least. Huge pages are not among it."""
    return Footprint((*_memory(context), Piece("QEMU itself at least", QEMU_AT_LEAST)))


def _guest(context: Context) -> Iterator[Piece]:
    yield from _memory(context)
    yield from _around_memory(context)


def _records(context: Context) -> Iterator[Piece]:
    if context.profile.security.guest_type is GuestType.SEV_SNP:
        yield Piece("the kernel's records of private pages", int(context.profile.memory.size * PRIVATE_RECORDS))


def _memory(context: Context) -> Iterator[Piece]:
    # An SNP guest's is either KVM's guest_memfd or the backend's: what changes sides is given back on the other one.
    snp = context.profile.security.guest_type is GuestType.SEV_SNP
    if not context.profile.memory.hugepages:
        yield Piece("guest memory, private or shared" if snp else "guest memory", context.profile.memory.size)


def _around_memory(context: Context) -> Iterator[Piece]:
    video = _video(context.profile.video)
    if video:
        yield Piece("video memory", video)
    yield Piece("firmware", FIRMWARE)
    yield Piece("ROMs and tables", ROMS)


def _video(video: Video) -> int:
    if video.type == "none":
        return 0
    surfaces = _SURFACE * video.heads
    if video.type == "qxl":
        sizes = (video.ram, video.vram, video.vgamem)
        return surfaces + sum(size or default for size, default in zip(sizes, _QXL, strict=True))
    return surfaces + (_VIRTIO if video.type == "virtio" else video.vram or _STD)


def _translations(context: Context, accel: str) -> Iterator[Piece]:
    if accel == "tcg":
        total = context.host.memory.total
        yield Piece("TCG's translations", min(TCG_BUFFER, total // 8) if total else TCG_BUFFER)
