"""Commands that go into a guest by SSH: ssh, cp. They become the system's ssh and scp."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sevlaunch.cli.complete import guest_names, guest_paths
from sevlaunch.errors import UsageError

if TYPE_CHECKING:
    from sevlaunch.guest.ssh import Way

UserOption = Annotated[
    str | None, typer.Option("-l", "--login", metavar="USER", help="Default: whom the guest's first boot has made.")
]
KeyOption = Annotated[
    Path | None,
    typer.Option("-i", "--identity", metavar="FILE", help="A private key. Default: the guest's own, or those of ssh."),
]
_SCP = "sevlaunch cp NAME:PATH PATH, or PATH NAME:PATH"


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    # What follows the guest's name is the command's own, options as well.
    app.command("ssh", context_settings={"allow_interspersed_args": False})(ssh)
    app.command("cp")(cp)


def ssh(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A guest.", autocompletion=guest_names)],
    command: Annotated[
        list[str],
        typer.Argument(metavar="[-- COMMAND...]", help="One word: a line for the guest's shell. Several: a program."),
    ] = [],  # noqa: B006 - typer reads the default
    user: UserOption = None,
    key: KeyOption = None,
) -> None:
    """Log in to a guest by SSH, or run a command there; exit with its code.

    The guest needs networks: [{type: user, ssh: auto}] in its profile, or vsock, and an SSH server that runs in it.
    """
    from sevlaunch.guest.ssh import become, ssh_argv

    words = command[1:] if command[:1] == ["--"] else command
    terminal = bool(words) and sys.stdin.isatty() and sys.stdout.isatty()
    become(ssh_argv(_way(name, user, key), words, terminal=terminal))


def cp(
    source: Annotated[str, typer.Argument(metavar="FROM", help="PATH or NAME:PATH.", autocompletion=guest_paths)],
    target: Annotated[str, typer.Argument(metavar="TO", help="PATH or NAME:PATH.", autocompletion=guest_paths)],
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Folders, too.")] = False,
    user: UserOption = None,
    key: KeyOption = None,
) -> None:
    """Copy files to a guest, or from it: one of the two paths is NAME:PATH, where NAME is a guest."""
    from sevlaunch.guest.ssh import become, local, scp_argv

    (there, path), (other, other_path) = _split(source), _split(target)
    if there and other:
        raise UsageError("wanted one path in a guest, found two", hint=f"copy it here first: {_SCP}")
    if there:
        way = _way(there, user, key)
        become(scp_argv(way, way.remote(path), local(target), recursive=recursive))
    elif other:
        way = _way(other, user, key)
        become(scp_argv(way, local(source), way.remote(other_path), recursive=recursive))
    else:
        raise UsageError("wanted a path in a guest, found none", hint=_SCP)


def _split(text: str) -> tuple[str, str]:
    """The guest and the path in it; no guest: it is a path of this host, such as ./a:b."""
    name, colon, path = text.partition(":")
    return (name, path) if colon and "/" not in name else ("", text)


def _way(name: str, user: str | None, key: Path | None) -> Way:
    from sevlaunch.flows.inside import way_into
    from sevlaunch.guest.host_keys import prepare_known_hosts

    way = way_into(name, user=user, key=key)
    prepare_known_hosts(way.known_hosts)
    return way
