"""What an imported domain still needs before it can be started on a host."""

from __future__ import annotations

from pathlib import Path

from sevlaunch.errors import HostError, Problem, ProfileError
from sevlaunch.host.model import Host
from sevlaunch.libvirt.domain import Imported
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads


def unmet(imported: Imported, host: Host, *, profile: str, base: Path | None = None) -> tuple[Problem, ...]:
    """Why the profile has no command line for ``host``, each point by itself; none: it has one.

    :param imported: a domain whose profile loads.
    :param profile: the name of the profile, for messages.
    :param base: the folder that relative paths in it start from.
    """
    try:
        resolve(loads(imported.text, file=profile, base=base, name=imported.name), host)
    except (ProfileError, HostError) as error:
        return tuple(error.problems) or (Problem(error.message, hint=error.hint),)
    return ()
