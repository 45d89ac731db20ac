"""What takes the writes to disks whose own images are never written: made at the start, kept or gone with the guest."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import IO

import msgspec

from sevlaunch.atomic import make_private_folder, space_hint, write_whole
from sevlaunch.errors import HostError, Problem
from sevlaunch.guest.handed import Opened, open_as_cached
from sevlaunch.guest.host_keys import forget_host_key
from sevlaunch.guest.locks import DISKS, take
from sevlaunch.guest.overlay_notes import ImageIdentity, note_of, read_note
from sevlaunch.guest.process import find_program
from sevlaunch.host.accounts import READ, WRITE, Account, grant, let_through
from sevlaunch.host.images import image_facts
from sevlaunch.image.inspection import unfit
from sevlaunch.plan.disk_image import ImagePlan
from sevlaunch.plan.overlay import SECTOR, OverlayPlan
from sevlaunch.plan.plan import Plan
from sevlaunch.units import format_size

# In the guest's state folder: held by QEMU while it has the overlays there, and by whoever makes them.
LOCK = "disks.lock"
# Seconds that qemu-img may take: it writes some hundred KiB.
_LIMIT = 60.0
# Seconds that it may still take when the start that began it has been killed, and how often is looked.
_LOCK_LIMIT, _LOCK_PAUSE = 2.0, 0.02


def prepare_overlays(plan: Plan, account: Account | None) -> int:
    """Make the overlays that are kept where they are not there yet, let QEMU's account at them, and lock them.

    :return: the open lock, for QEMU to inherit: it is held as long as QEMU lives. -1: no overlay is kept.
    :raise HostError: when one can't be made, belongs to another guest that runs, or to an image that has changed.
    """
    kept = list(_kept(plan))
    if not kept:
        return -1
    lock = _lock(plan)
    try:
        for image, overlay, file in kept:
            _prepare(image, overlay, file, lock, plan)
            if account:
                grant(file, account, READ | WRITE)
        if account:
            let_through(plan.state_folder, account)
    except BaseException:
        os.close(lock)
        raise
    return lock


def check_overlays(plan: Plan) -> None:
    """See that the overlays that are there fit their images, and the plan; as :func:`prepare_overlays`, and touch none.

    :raise HostError: when one does not.
    """
    for image, overlay, file in _kept(plan):
        if file.exists():
            _check_same(file, _identity(image.path.value), _afresh(plan))
            _has_size(file, _size_of(image, overlay), _afresh(plan))


def make_ephemeral(plan: Plan, opened: Opened) -> None:
    """Open the disks that are gone with the guest, files that have no name, unless they are open already.

    :raise HostError: when one can't be made.
    """
    for image in (disk.image for disk in plan.storage.disks):
        overlay, folder = image.overlay, image.folder
        if overlay and not overlay.kept.value and overlay.descriptor not in opened.numbers:
            opened.keep(overlay.descriptor, _unnamed(image, overlay))
        if folder and folder.descriptor not in opened.numbers:
            # Few guests have one.
            from sevlaunch.guest.folder_disks import disk_of_folder

            opened.keep(folder.descriptor, disk_of_folder(folder, image))


def _kept(plan: Plan) -> Iterator[tuple[ImagePlan, OverlayPlan, Path]]:
    """The disks whose overlays are kept, with those, and where they are."""
    for disk in plan.storage.disks:
        overlay = disk.image.overlay
        if overlay and overlay.file:
            yield disk.image, overlay, Path(overlay.file)


def _lock(plan: Plan) -> int:
    file = plan.state_folder / LOCK
    try:
        make_private_folder(plan.state_folder)
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise HostError(f"can't open {file}: {error.strerror}", hint="set XDG_STATE_HOME") from error
    try:
        free = _is_free(fd)
    except OSError as error:
        os.close(fd)
        raise HostError(
            f"can't lock {file}: {error.strerror}", hint="set XDG_STATE_HOME to a file system that has locks"
        ) from error
    if not free:
        os.close(fd)
        raise HostError(
            f"the disks in {plan.state_folder} belong to another guest that runs, and two would destroy them",
            hint="take that guest down, or give this one another name with --name",
        )
    return fd


def _is_free(fd: int) -> bool:
    """Take the lock; whether it was free, or became so in a moment: a start that was killed leaves a qemu-img alone."""
    until = time.monotonic() + _LOCK_LIMIT
    while not take(fd, DISKS):
        if time.monotonic() > until:
            return False
        time.sleep(_LOCK_PAUSE)
    return True


def _prepare(image: ImagePlan, overlay: OverlayPlan, file: Path, lock: int, plan: Plan) -> None:
    """See that the kept overlay of ``image`` is there, and of this image. Needs the lock."""
    size, identity = _size_of(image, overlay), _identity(image.path.value)
    if file.exists():
        _check_same(file, identity, _afresh(plan))
        if not _has_size(file, size, _afresh(plan)):
            _qemu_img(overlay, ("resize", "-q", "-f", "qcow2", str(file), str(size)), (lock,), file)
        return
    if image.name == plan.storage.disks[0].image.name:
        forget_host_key(plan.state_folder)
    # The note first: without its overlay, as a start that was killed leaves it, it says nothing.
    note_of(file).unlink(missing_ok=True)
    write_whole(note_of(file), json.dumps(msgspec.to_builtins(identity)).encode(), replace=False)
    new = file.with_name(f".{file.name}.new")
    try:
        new.unlink(missing_ok=True)
        _qemu_img(overlay, ("create", "-q", "-f", "qcow2", str(new), str(size)), (lock,), file)
        with new.open("rb") as stream:
            os.fchmod(stream.fileno(), 0o600)
            os.fsync(stream.fileno())
        new.rename(file)
    except OSError as error:
        raise HostError(f"can't make {file}: {error.strerror}", hint=space_hint(error)) from error
    finally:
        new.unlink(missing_ok=True)


def _size_of(image: ImagePlan, overlay: OverlayPlan) -> int:
    """Bytes of the disk. What was true of the image when the plan was made may not be any more."""
    path = image.path.value
    facts = image_facts(path)
    if facts is None:
        raise HostError(f"can't look into the image {path}", hint=image.remedy)
    wanted = overlay.size.value if overlay.size else None
    if found := unfit(path, facts, wanted):
        raise HostError(found.message, hint=found.hint)
    return wanted or -(-(facts.virtual_size or 0) // SECTOR) * SECTOR


def _afresh(plan: Plan) -> str:
    again = f"sevlaunch up --fresh {quote(plan.profile_file)}"
    return f"to lose what was written, and start from the image as it is now: {again}"


def _identity(path: str) -> ImageIdentity:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise HostError(f"can't look at the image {path}: {error.strerror}") from error
    return ImageIdentity(path, found.st_size, found.st_mtime_ns, found.st_ino)


def _check_same(file: Path, now: ImageIdentity, fresh: str) -> None:
    """What was written on top of one image makes nonsense of another.

    :raise HostError: when the image is not the one that the overlay was made for.
    """
    try:
        then = read_note(file)
    except (OSError, ValueError) as error:
        raise HostError(
            f"can't tell which image {file} was made for: {note_of(file)} can't be read", hint=fresh
        ) from error
    if then.is_that_of(now):
        return
    other = then.image != now.image
    what = "was made for another image" if other else "was made for the image as it was before somebody changed it"
    raise HostError(
        f"the overlay {file} {what}",
        problems=[
            Problem(f"the image when it was made: {then.describe()}"),
            Problem(f"the image now: {now.describe()}"),
        ],
        hint=f"put the old image back (mv, not cp), or, {fresh}",
    )


def _has_size(file: Path, size: int, fresh: str) -> bool:
    """Whether an overlay is as large as the profile says; a larger one can't be had smaller.

    :raise HostError: when it would have to shrink, or is damaged.
    """
    found = image_facts(str(file))
    if found is None or found.format != "qcow2" or found.leans_on or not found.virtual_size:
        raise HostError(f"the overlay {file} is damaged", hint=fresh)
    if found.virtual_size > size:
        has, wanted = format_size(found.virtual_size), format_size(size)
        raise HostError(
            f"the overlay {file} has {has}, and the profile says {wanted}: what is cut off is lost",
            hint=f"say size: {has}; or, {fresh}",
        )
    return found.virtual_size == size


def _unnamed(image: ImagePlan, overlay: OverlayPlan) -> IO[bytes]:
    """An open overlay that goes with the last process that has it open."""
    folder = Path(overlay.folder)
    try:
        make_private_folder(folder)
        with ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile(dir=folder))
            size = _size_of(image, overlay)
            # Nobody else can name it.
            own = f"/proc/self/fd/{file.fileno()}"
            _qemu_img(overlay, ("create", "-q", "-f", "qcow2", own, str(size)), (file.fileno(),), folder)
            open_as_cached(file, image.cache.value)
            stack.pop_all()
            return file
    except OSError as error:
        raise HostError(f"can't make an overlay in {folder}: {error.strerror}", hint=space_hint(error)) from error


def _qemu_img(overlay: OverlayPlan, arguments: Sequence[str], inherit: Sequence[int], where: Path) -> None:
    """Run qemu-img, which opens the overlay alone.

    :param inherit: descriptors that it keeps: while it runs on after we were killed, the lock is held.
    :raise HostError: when it is missing, or fails.
    """
    needed = overlay.qemu_img
    program = find_program(needed.program, needed.fallbacks, needed.remedy)
    try:
        done = subprocess.run(
            [program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=inherit,
            timeout=_LIMIT,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"can't run {program}: {error}") from error
    if done.returncode:
        said = done.stdout.decode(errors="replace").strip().splitlines()
        raise HostError(
            f"{program} {arguments[0]} failed for {where}: exit code {done.returncode}",
            problems=[Problem(line) for line in said],
            hint="is there room, and is size what it should be?",
        )
