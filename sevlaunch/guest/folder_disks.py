"""Making the disk of a folder when a guest starts."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO

from sevlaunch.atomic import make_private_folder, space_hint
from sevlaunch.errors import HostError
from sevlaunch.guest.handed import open_as_cached
from sevlaunch.image.folder import write_folder_image
from sevlaunch.plan.disk_image import ImagePlan
from sevlaunch.plan.folder_disk import FolderDiskPlan


def disk_of_folder(folder: FolderDiskPlan, image: ImagePlan) -> IO[bytes]:
    """The disk, open for reading: a file that has no name, and goes with the last process that has it open.

    :raise HostError: when it can't be made, or there is in the folder what no disk can hold.
    """
    place = Path(folder.place)
    try:
        make_private_folder(place)
        with tempfile.TemporaryFile(dir=place) as file:
            write_folder_image(Path(folder.source.value), folder.label.value, file)
            # QEMU takes none but one that is open as the disk is.
            opened = os.fdopen(os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC), "rb")
        try:
            open_as_cached(opened, image.cache.value)
        except BaseException:
            opened.close()
            raise
        return opened
    except OSError as error:
        raise HostError(
            f"can't make the disk of {folder.source.value} in {place}: {error.strerror}", hint=space_hint(error)
        ) from error
