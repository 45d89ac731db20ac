"""The ``sevlaunch`` command: its subcommands, and what becomes of errors."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from sevlaunch import __version__
from sevlaunch.cli.commands import COMMANDS, GROUPS, IMAGE, OWNER
from sevlaunch.cli.failures import SeveralErrors, print_errors, print_internal_error, print_usage_error
from sevlaunch.cli.signals import Interrupted, signal_came
from sevlaunch.cli.streams import check_output, prepare_streams
from sevlaunch.errors import SevlaunchError
from sevlaunch.opening import too_few_descriptors

_GROUP_HELP = {
    IMAGE: "Images that guests boot from: fetched, verified, and kept in a cache.",
    OWNER: "The guest owner's side: from files (but for fetch, publish), trusting AMD's keys and nothing on the host.",
}
_GROUP_SUMMARY = {
    IMAGE: "Images that guests boot from: fetched, verified, and kept.",
    OWNER: "The guest owner's side: launches measured and verified.",
}
# The root of what typer raises for a wrong command line: click's own, which newer versions of typer have inside.
_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
# With it in the environment, typer completes a command line.
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
    """The command that ``words``, the arguments, ask for; where they name none, as for help, the list of commands."""
    first, second = (*(word for word in words if not word.startswith("-")), "", "")[:2]
    named = first in GROUPS or any(first in names for names in COMMANDS.values())
    app = typer.Typer(
        name="sevlaunch",
        help="Start AMD SEV, SEV-ES and SEV-SNP guests by running QEMU directly.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        # The options that install completion, which no command has.
        add_completion=not named or _COMPLETION in os.environ,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(options)
    if first not in GROUPS:
        _add_commands(app, COMMANDS, first)
    if first in GROUPS or not named:
        for name in (first,) if first in GROUPS else GROUPS:
            group = typer.Typer(name=name, help=_GROUP_HELP[name], no_args_is_help=True, rich_markup_mode=None)
            if first == name or _COMPLETION in os.environ:
                _add_commands(group, GROUPS[name], second)
            app.add_typer(group, short_help=_GROUP_SUMMARY[name])
    return app


def _add_commands(app: typer.Typer, modules: Mapping[str, Mapping[str, str]], asked: str) -> None:
    """Add the command ``asked`` to ``app``; if no module has it, what the list of commands says of all."""
    for module, names in modules.items():
        if asked in names:
            _import(module, app)
            app.registered_commands = [command for command in app.registered_commands if command.name == asked]
            return
    for module, names in modules.items():
        if _COMPLETION in os.environ:
            # The command line that is completed, and so its command, is not in the arguments.
            _import(module, app)
        else:
            for name, summary in names.items():
                app.command(name, help=summary, hidden=not summary)(_only_listed)


def _import(module: str, app: typer.Typer) -> None:
    import_module(f"sevlaunch.cli.{module}").register(app)


def _only_listed() -> None:
    """A command of the list: whoever calls one names it, and gets the command itself."""


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
