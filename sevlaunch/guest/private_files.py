"""What is in the files that are written for QEMU before a start."""

from __future__ import annotations

from pathlib import Path

from sevlaunch.plan.part import PrivateFile


def content_of(file: PrivateFile) -> bytes:
    """The bytes of a file of a plan.

    :raise UsageError: when what it is copied from can't be read.
    """
    if not file.source:
        return file.text.encode()
    # Few are copies.
    from sevlaunch.files import MAX_BOOT_FILE_BYTES, read_bounded

    return read_bounded(Path(file.source), "boot", MAX_BOOT_FILE_BYTES)
