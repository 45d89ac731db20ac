"""The ``sevlaunch`` command: its subcommands, and what becomes of errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import chain
from typing import Annotated, Any

import typer

from sevlaunch import __version__
from sevlaunch.cli.failures import SeveralErrors, print_errors, print_internal_error, print_usage_error
from sevlaunch.cli.signals import Interrupted, signal_came
from sevlaunch.cli.streams import check_output, prepare_streams
from sevlaunch.errors import SevlaunchError
from sevlaunch.opening import too_few_descriptors

# The modules of the commands. Only the command that is asked for is imported and read: nobody waits for the others.
MODULES = {
    "up": ("up",),
    "guests": ("down", "rm", "ps", "ls", "status", "evidence", "console", "qmp", "inject", "resume"),
    "restarting": ("restart",),
    "logs": ("logs",),
    "inside": ("exec", "wait", "events", "pause"),
    "ssh": ("ssh", "cp"),
    "attest": ("attest",),
    "profiles": ("check", "render", "schema", "init", "policy", "host"),
    "doctor": ("doctor",),
    "importing": ("import",),
    "services": ("unit",),
}
OWNER, IMAGE = "owner", "image"
# The commands that have commands of their own, with the modules of those.
GROUPS: dict[str, dict[str, tuple[str, ...]]] = {
    IMAGE: {"images": ("fetch", "ls", "rm", "verity"), "seed_check": ("seed-check",)},
    OWNER: {
        "owner.session": ("session",),
        "owner.digest": ("digest",),
        "owner.verify": ("verify",),
        "owner.secret": ("secret",),
        "owner.report": ("report",),
        "owner.fetch": ("fetch",),
        "owner.request": ("request",),
        "owner.id_block": ("id-block",),
        "owner.compare": ("compare",),
        "owner.initdata": ("initdata",),
    },
}
_GROUP_HELP = {
    IMAGE: "Images that guests boot from: fetched, verified, and kept in a cache.",
    OWNER: "The guest owner's side: from files alone (but for fetch), trusting AMD's keys and nothing on the host.",
}
# The root of what typer raises for a wrong command line: click's own, which newer versions of typer have inside.
_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
# With it in the environment, typer completes a command line that is not in the arguments.
_COMPLETION = "_SEVLAUNCH_COMPLETE"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sevlaunch {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors.")] = False,
) -> None:
    """Options for every command."""
    if debug:
        os.environ["SEVLAUNCH_DEBUG"] = "1"


def command_line(words: Sequence[str]) -> typer.Typer:
    """The command that ``words``, the arguments, ask for; where they name none, as for help, all commands."""
    app = typer.Typer(
        name="sevlaunch",
        help="Start AMD SEV, SEV-ES and SEV-SNP guests by running QEMU directly.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    first, second = (*(word for word in words if not word.startswith("-")), "", "")[:2]
    if first not in GROUPS:
        _add_commands(app, MODULES, first)
    if first not in chain(*MODULES.values()):
        for name in (first,) if first in GROUPS else GROUPS:
            group = typer.Typer(name=name, help=_GROUP_HELP[name], no_args_is_help=True, rich_markup_mode=None)
            _add_commands(group, GROUPS[name], second)
            app.add_typer(group)
    if list(words) in ([], ["--help"]) and _COMPLETION not in os.environ:
        # The list of the commands shows no options, and to read those of all takes longer than all else.
        groups = [group.typer_instance for group in app.registered_groups]
        for command in chain(*(group.registered_commands for group in [app, *groups] if group)):
            command.callback = _summary(command.callback)
    return app


def _add_commands(app: typer.Typer, modules: Mapping[str, Sequence[str]], name: str) -> None:
    """Add the command ``name`` to ``app``; if no module has it, all commands."""
    for module in [module for module, names in modules.items() if name in names] or modules:
        import_module(f"sevlaunch.cli.{module}").register(app)
    asked = [command for command in app.registered_commands if command.name == name]
    app.registered_commands = asked or app.registered_commands


def _summary(command: Callable[..., Any] | None) -> Callable[[], None]:
    def summary() -> None:
        """Replaced by the command's own."""

    if command is not None:
        summary.__name__, summary.__doc__ = command.__name__, command.__doc__
    return summary


def run() -> None:
    """Run the command and exit with its code."""
    prepare_streams()
    try:
        # Without typer's own end: it prints mistakes in the command line as text alone.
        code = command_line(sys.argv[1:])(prog_name="sevlaunch", standalone_mode=False)
        check_output()
        sys.exit(code)
    except Exception as caught:
        if os.environ.get("SEVLAUNCH_DEBUG"):
            raise
        if signal_came():
            raise Interrupted from caught
        sys.exit(_report(too_few_descriptors(caught) or caught))


def _report(error: Exception) -> int:
    """Print ``error``; the exit code."""
    if isinstance(error, SevlaunchError | SeveralErrors):
        errors = error.errors if isinstance(error, SeveralErrors) else (error,)
        print_errors(errors)
        return errors[0].exit_code
    if isinstance(error, _CLICK_ERROR):
        text = io.StringIO()
        error.show(text)
        print_usage_error(error.format_message(), text.getvalue(), error.exit_code)
        return int(error.exit_code)
    print_internal_error(error)
    return 1
