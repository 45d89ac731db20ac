"""Commands that work in a guest that runs, or wait for it: exec, wait, events, pause."""

from __future__ import annotations

import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sevlaunch.cli.complete import conditions_and_end, guest_names
from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_json, print_json_line, progress, say
from sevlaunch.cli.streams import is_read
from sevlaunch.errors import UsageError

if TYPE_CHECKING:
    from sevlaunch.guest.agent_programs import ProgramEnd

GuestArgument = Annotated[str, typer.Argument(metavar="NAME", help="A guest.", autocompletion=guest_names)]
# What a shell answers for a command that a signal ended.
_SIGNALLED = 128


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    # What follows the program is its own, options as well.
    app.command("exec", context_settings={"allow_interspersed_args": False})(run)
    for command in (wait, events, pause):
        app.command(command.__name__)(command)


def run(
    name: GuestArgument,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="A program and its arguments; no shell.")],
    stdin: Annotated[
        bool, typer.Option("-i", "--stdin", help="Read all of the standard input first, and give it to the program.")
    ] = False,
    raw: Annotated[
        bool, typer.Option("--raw", help="On a terminal, too: the bytes as they are, whatever they do to it.")
    ] = False,
    timeout: Annotated[float | None, typer.Option("--timeout", help="Seconds that it may take.", min=0.1)] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Run a program in a guest through the QEMU guest agent; exit with its code.

    The guest needs guest_agent: true in its profile, and qemu-guest-agent running in it.
    """
    from sevlaunch.cli import interrupt
    from sevlaunch.flows.inside import run_in_guest

    # The words after NAME are not searched for options, so that this one stays in.
    program = command[1:] if command[0] == "--" else command
    if not program:
        raise UsageError("wanted a program to run, found none", hint="sevlaunch exec NAME -- PROGRAM")
    given = sys.stdin.buffer.read() if stdin else b""
    with progress(f"running {program[0]} in {name}"):
        end = interrupt.run(run_in_guest(name, program, given=given, limit=timeout))
    if output is Format.JSON:
        print_json(_document(end))
    else:
        _pass_on(end.stdout, sys.stdout, raw)
        _pass_on(end.stderr, sys.stderr, raw)
        if end.truncated:
            note(f"sevlaunch: {name} keeps 16 MiB of a program's output: the rest is lost")
    code = end.exit_code if end.exit_code is not None else _SIGNALLED + (end.signal or 0)
    raise typer.Exit(code)


def _document(end: ProgramEnd) -> dict[str, Any]:
    return {
        "exit_code": end.exit_code,
        "signal": end.signal,
        "stdout": end.stdout.decode(errors="backslashreplace"),
        "stderr": end.stderr.decode(errors="backslashreplace"),
        "truncated": end.truncated,
    }


def _pass_on(data: bytes, stream: Any, raw: bool) -> None:
    from sevlaunch.text import VisibleStream

    if raw or not stream.isatty():
        stream.buffer.write(data)
    else:
        shown = VisibleStream()
        stream.write(shown.feed(data) + shown.feed(b"", final=True))
    stream.flush()


def wait(
    name: GuestArgument,
    conditions: Annotated[
        list[str],
        typer.Argument(
            metavar="CONDITION...",
            help="ssh, cloud-init, qga, console:TEXT, port:HOST:PORT, port:GUESTPORT, vsock:PORT; or end: it ended.",
            autocompletion=conditions_and_end,
        ),
    ],
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds for each condition.", min=0.1)] = 120.0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Wait until a guest is ready, or has ended."""
    from sevlaunch.cli import interrupt
    from sevlaunch.flows.inside import wait_for, wait_for_end
    from sevlaunch.guest.readiness import parse_condition

    ends = conditions[-1] == "end"
    if "end" in conditions[:-1]:
        raise UsageError("wanted end as the last condition, found another after it")
    parsed = [parse_condition(condition) for condition in (conditions[:-1] if ends else conditions)]
    with progress(f"waiting for {name}"):
        if parsed:
            interrupt.run(wait_for(name, parsed, limit=timeout))
        if ends:
            interrupt.run(wait_for_end(name, limit=timeout))
    reached = "ended" if ends else "ready"
    if output is Format.JSON:
        print_json({"name": name, "reached": conditions})
    else:
        say(f"{name}: {reached}")


def events(name: GuestArgument, output: FormatOption = Format.TEXT) -> None:
    """Print QMP's events of a guest as they come, until it ends; one JSON object a line with --format json.

    Meanwhile no other program can attach to the guest; the other commands work.
    """
    from sevlaunch.cli import interrupt
    from sevlaunch.flows.inside import follow_events

    async def follow() -> None:
        async with aclosing(follow_events(name)) as coming:
            async for event in coming:
                if output is Format.JSON:
                    print_json_line(event)
                else:
                    say(_in_words(event))
                if not is_read():
                    return

    interrupt.run(follow())


def _in_words(event: dict[str, Any]) -> str:
    stamp = event.get("timestamp", {})
    moment = datetime.fromtimestamp(stamp.get("seconds", 0), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    data = " ".join(f"{key}={value}" for key, value in event.get("data", {}).items())
    return f"{moment}.{stamp.get('microseconds', 0):06}Z {event['event']} {data}".rstrip()


def pause(name: GuestArgument, output: FormatOption = Format.TEXT) -> None:
    """Stop a guest's virtual processors until `sevlaunch resume`."""
    from sevlaunch.cli import interrupt
    from sevlaunch.cli.status_text import show_guest
    from sevlaunch.guest.commands import pause as stop
    from sevlaunch.host.folders import runtime_folder

    show_guest(interrupt.run(stop(runtime_folder(), name)), output)
