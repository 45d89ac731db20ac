"""What is in the files that are written for QEMU before a start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sevlaunch.errors import HostError
from sevlaunch.plan.part import PrivateFile
from sevlaunch.plan.plan import Plan


def private_files(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """The names and contents of what is written for QEMU: files of the plan, an initrd, a seed, init-data.

    :raise SevlaunchError: when something of it can't be made.
    """
    for file in plan.files:
        yield Path(file.path).name, _content_of(file)
    if plan.boot.credentials and plan.boot.initrd:
        # Few guests have credentials.
        from sevlaunch.image.initrd import joined_initrd

        credentials = plan.boot.credentials
        pieces = joined_initrd(Path(plan.boot.initrd.value), credentials.contents.value, error=HostError)
        yield credentials.path.name, b"".join(pieces)
    if plan.first_boot or plan.initdata:
        # Few guests have a seed.
        from sevlaunch.guest.first_boot import made_disks

        yield from made_disks(plan)


def _content_of(file: PrivateFile) -> bytes:
    """The bytes of a file of a plan.

    :raise UsageError: when what it is copied from can't be read.
    """
    if not file.source:
        return file.text.encode()
    # Few are copies.
    from sevlaunch.files import MAX_BOOT_FILE_BYTES, read_bounded

    return read_bounded(Path(file.source), "boot", MAX_BOOT_FILE_BYTES)
