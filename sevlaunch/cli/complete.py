"""Shell completion: guest names, those of which something is kept, profiles, and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def guest_names(incomplete: str) -> list[str]:
    """Guests whose name begins with ``incomplete``."""
    from sevlaunch.errors import HostError
    from sevlaunch.guest.folder import guests
    from sevlaunch.host.folders import runtime_folder

    try:
        return [folder.name for folder in guests(runtime_folder()) if folder.name.startswith(incomplete)]
    except HostError:
        # A shell that completes a word has no place for a message; the command itself will say it.
        return []


def conditions(incomplete: str) -> list[str]:
    """What `up --wait` and `wait` wait for; those that want more end with a colon."""
    forms = ("ssh", "cloud-init", "qga", "console:", "port:", "vsock:")
    return [form for form in forms if form.startswith(incomplete)]


def conditions_and_end(incomplete: str) -> list[str]:
    """The same with what only `wait` waits for."""
    return [*conditions(incomplete), *(["end"] if "end".startswith(incomplete) else [])]


def guest_paths(incomplete: str) -> list[str]:
    """Guests as a path in one begins, and files of this host."""
    if ":" in incomplete.partition("/")[0]:
        # What is in a guest is not looked at while somebody types.
        return []
    return [*(f"{name}:" for name in guest_names(incomplete)), *_paths(incomplete, lambda _: True)]


def kept_names(incomplete: str) -> list[str]:
    """Guests of which something is kept, whether they run or not, whose name begins with ``incomplete``."""
    from sevlaunch.host.folders import state_folder

    state = state_folder()
    if not state.is_dir():
        return []
    return sorted(
        path.name
        for path in state.iterdir()
        if path.is_dir() and path.name.startswith(incomplete) and not path.name.startswith(".")
    )


def profile_files(incomplete: str) -> list[str]:
    """Profiles, and folders that may hold some, that begin with ``incomplete``."""
    return _paths(incomplete, lambda path: path.suffix in (".yaml", ".yml"))


def _paths(incomplete: str, wanted: Callable[[Path], bool]) -> list[str]:
    """Files that are ``wanted``, and folders."""
    folder, _, start = incomplete.rpartition("/")
    base = Path(folder or ("/" if incomplete.startswith("/") else "."))
    prefix = incomplete.removesuffix(start)
    if not base.is_dir():
        return []
    return [
        f"{prefix}{path.name}" + ("/" if path.is_dir() else "")
        for path in sorted(base.iterdir())
        if path.name.startswith(start) and (path.is_dir() or wanted(path))
    ]


def catalogue_names(incomplete: str) -> list[str]:
    """Images of the catalogue whose name begins with ``incomplete``."""
    from sevlaunch.errors import SevlaunchError
    from sevlaunch.image.catalogue import read_catalogue

    try:
        return [name for name in read_catalogue() if name.startswith(incomplete)]
    except SevlaunchError:
        return []


def cached_images(incomplete: str) -> list[str]:
    """Images in the cache whose name begins with ``incomplete``."""
    from sevlaunch.errors import SevlaunchError
    from sevlaunch.image.store import list_images

    try:
        return [kept.entry for kept in list_images() if kept.entry.startswith(incomplete)]
    except SevlaunchError:
        return []
