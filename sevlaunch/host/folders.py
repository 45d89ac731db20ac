"""Where this user's guests have their files. Apart from the probes, so that looking at guests stays quick."""

from __future__ import annotations

import os
from pathlib import Path


def base_folder(variable: str) -> Path | None:
    """The folder that a variable of the XDG Base Directory Specification names, which ignores relative ones, too."""
    value = os.environ.get(variable, "")
    return Path(value) if value.startswith("/") else None


def runtime_folder() -> Path:
    """The folder of this user's running guests: ``$XDG_RUNTIME_DIR/sevlaunch``, for root ``/run/sevlaunch``."""
    base = base_folder("XDG_RUNTIME_DIR")
    if base:
        return base / "sevlaunch"
    return Path("/run/sevlaunch") if os.geteuid() == 0 else Path(f"/tmp/sevlaunch-{os.geteuid()}")


def state_folder() -> Path:
    """What outlives this user's guests: ``$XDG_STATE_HOME/sevlaunch``, for root ``/var/lib/sevlaunch``."""
    base = base_folder("XDG_STATE_HOME")
    if base:
        return base / "sevlaunch"
    return Path("/var/lib/sevlaunch") if os.geteuid() == 0 else Path.home() / ".local/state/sevlaunch"


def images_folder() -> Path:
    """This user's fetched images: ``$XDG_CACHE_HOME/sevlaunch/images``, for root ``/var/cache/sevlaunch/images``."""
    return _cache_folder() / "images"


def boot_files_folder() -> Path:
    """What was taken out of images to be booted; beside them, see :func:`images_folder`."""
    return _cache_folder() / "boot"


def _cache_folder() -> Path:
    base = base_folder("XDG_CACHE_HOME")
    if base is None:
        base = Path("/var/cache") if os.geteuid() == 0 else Path.home() / ".cache"
    return base / "sevlaunch"


def image_file(entry: str, folder: Path | None = None) -> Path:
    """Where the image of an entry of the cache is, once it is fetched.

    :param folder: the cache instead of the user's own.
    """
    return (folder or images_folder()) / entry / "image"
