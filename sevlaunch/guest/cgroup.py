"""A cgroup v2 of a guest's own, with a limit on its memory: cgroups(7), the kernel's cgroup-v2.rst."""

from __future__ import annotations

import os
from pathlib import Path

from sevlaunch.errors import HostError
from sevlaunch.guest.folder import CGROUP, GuestFolder
from sevlaunch.plan.memory_limits import MemoryLimit


def make_cgroup(folder: GuestFolder, limit: MemoryLimit) -> Path:
    """Make the cgroup, note it in the guest's folder, set its limit. It goes when the guest's folder goes.

    :raise HostError: when it can't be made, or does not take the limit.
    """
    cgroup = Path(limit.parent) / f"sevlaunch-{folder.name}"
    try:
        if cgroup.is_dir():
            # What a guest left that lost its folder, by a restart of the machine's runtime folders, say.
            cgroup.rmdir()
        cgroup.mkdir()
        with folder.opened() as opened:
            os.symlink(cgroup, CGROUP, dir_fd=opened.fd)
        (cgroup / "memory.max").write_text(str(limit.size.value))
        swap = cgroup / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    except OSError as error:
        raise HostError(
            f"can't limit the memory of {folder.name} in {cgroup}: {error.strerror}",
            hint="leave memory.hard_limit out, or run it under systemd",
        ) from error
    return cgroup
