"""The files that a profile names, and that are read with it."""

from __future__ import annotations

from sevlaunch.opening import open_regular
from sevlaunch.profile.fields import absolute_path


def read_named(value: str, most: int, what: str) -> tuple[bytes, str]:
    """At most ``most`` bytes of the beginning of the file that ``value`` names, and its path.

    :raise ValueError: when it can't be read, with ``what`` was wanted.
    """
    path = absolute_path(value)
    try:
        with open_regular(path) as stream:
            return stream.read(most), path
    except (OSError, ValueError) as error:
        # ValueError: a path with NUL.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"wanted {what}: can't read {path}: {reason}") from error
