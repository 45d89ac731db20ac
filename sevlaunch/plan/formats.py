"""A plan's command line for people and programs: shell, json, lines, explain."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator

from sevlaunch.plan.command_line import argv, helper_documents, render
from sevlaunch.plan.memory import explain_memory
from sevlaunch.plan.needs import Companion
from sevlaunch.plan.option import Option
from sevlaunch.plan.plan import Plan

FORMATS = ("shell", "json", "lines", "explain")
# The tap interfaces that no shell can open.
_TAPS = {
    "bridge": "qemu-bridge-helper sends one on {} over a socket",
    "given": "the program that starts the guest has it",
}


def format_plan(plan: Plan, style: str) -> str:
    """The command line of ``plan`` in one of :data:`FORMATS`."""
    return {"shell": shell, "json": as_json, "lines": lines, "explain": explain}[style](plan)


def as_json(plan: Plan) -> str:
    """The command line as a JSON list; with helper programs, an object: ``argv``, and ``helpers`` with theirs."""
    helpers = helper_documents(plan)
    document = {"argv": argv(plan), "helpers": helpers} if helpers else argv(plan)
    return json.dumps(document, indent=2, ensure_ascii=False)


def lines(plan: Plan) -> str:
    """One option a line, with its value, quoted for a shell; helper programs, which are started first, go first."""
    return "\n".join([*(_helper_lines(plan)), *_lines(plan.binary.value, render(plan))])


def shell(plan: Plan) -> str:
    """A script that a shell runs: it prepares the guest's folder, then starts QEMU, paused.

    QEMU keeps the lock file of the guest's folder open, by which sevlaunch's other commands find the guest.
    """
    folder = shlex.quote(str(plan.folder))
    steps = [f"# {plan.name}: starts paused; then: sevlaunch resume {shlex.quote(plan.name)}"]
    if plan.run_as:
        steps.append(
            f"# as root: run_as ({plan.run_as.value}), and access to the folder for it, are for `sevlaunch up`"
        )
    steps.append(f"install -d -m 0700 {folder} {shlex.quote(str(plan.qemu_folder))}")
    if plan.console:
        steps.append(f"install -d -m 0700 {shlex.quote(str(plan.console.log.parent))}")
    for file in plan.files:
        quoted = shlex.quote(file.path)
        if file.secret:
            steps.append(f"# {file.path} holds a secret, and is for `sevlaunch up` to make")
        elif file.source:
            steps.append(f"install -m 0600 {shlex.quote(file.source)} {quoted}")
        else:
            steps.append(f"(umask 077; printf %s {shlex.quote(file.text)} > {quoted})")
    if plan.boot.credentials:
        steps.append(f"# {plan.boot.credentials.path}, initrd and credentials, is for `sevlaunch up` to make")
    if plan.first_boot:
        steps.append(f"# {plan.first_boot.path}, the seed of first_boot, is for `sevlaunch up` to make")
    if plan.initdata:
        steps.append(f"# {plan.initdata.path}, the disk of initdata, is for `sevlaunch up` to make")
    if plan.firmware.vars and plan.firmware.vars_template:
        target = shlex.quote(plan.firmware.vars.value)
        steps.append(f"install -d -m 0700 {shlex.quote(plan.firmware.vars.value.rsplit('/', 1)[0])}")
        steps.append(f"test -e {target} || install -m 0600 {shlex.quote(plan.firmware.vars_template)} {target}")
    steps += _overlay_steps(plan)
    needs = plan.needs
    steps += [f"install -d -m 0700 {shlex.quote(folder)}" for folder in needs.state_folders]
    for companion in needs.companions:
        # The fallbacks lie in folders that are on nobody's PATH.
        folders = [place.rpartition("/")[0] for place in companion.fallbacks]
        path = f'PATH="$PATH":{shlex.quote(":".join(folders))} ' if folders else ""
        steps.append(f"{path}{shlex.join(companion.argv)} &")
        steps.append(f"until test -S {shlex.quote(companion.socket)}; do sleep 0.1; done")
    steps += [
        f"# descriptor {one.number} is for `sevlaunch up` to open: {_TAPS[one.kind].format(one.name)}"
        for one in needs.descriptors
        if one.kind != "macvtap"
    ]
    opened = "".join(
        f'{one.number}<>"/dev/tap$(cat {shlex.quote(f"/sys/class/net/{one.name}/ifindex")})" \\\n  '
        for one in needs.descriptors
        if one.kind == "macvtap"
    )
    command = " \\\n  ".join(_lines(plan.binary.value, render(plan)))
    variables = "".join(f"{name}={shlex.quote(value)} " for name, value in needs.environment)
    steps.append(f"{variables}{command} \\\n  {opened}9>>{shlex.quote(str(plan.folder / 'lock'))}")
    return "\n".join(steps)


def _overlay_steps(plan: Plan) -> Iterator[str]:
    for disk in plan.storage.disks:
        overlay, image = disk.image.overlay, disk.image
        if image.folder:
            yield f"# {disk.name}, made of {image.folder.source.value}, is for `sevlaunch up` to make"
        if overlay is None:
            continue
        # Nobody has looked at an image that has no size: qemu-img does.
        base = () if overlay.size else ("-b", image.path.value, "-F", image.format.value)
        size = (str(overlay.size.value),) if overlay.size else ()
        create = shlex.join(("qemu-img", "create", "-q", "-f", "qcow2", *base))
        yield f"install -d -m 0700 {shlex.quote(overlay.folder)}"
        if overlay.file:
            file = shlex.quote(overlay.file)
            yield f"test -e {file} || (umask 077; {create} {shlex.join((overlay.file, *size))})"
        else:
            # Without a name from here on, it is gone with QEMU.
            yield f"{disk.name}=$(mktemp -p {shlex.quote(overlay.folder)})"
            yield f'{create} "${disk.name}" {shlex.join(size)}'.rstrip()
            yield f'exec {overlay.descriptor}<>"${disk.name}"; rm "${disk.name}"'


def explain(plan: Plan) -> str:
    """Every argument with where it came from."""
    blocks: list[str] = []
    for companion in plan.companions:
        blocks.append(f"{companion.program}\n    {_beside(companion)}")
        blocks += ["\n".join(_explained(option)) for option in companion.options]
    blocks.append(f"{plan.binary.value}\n    {plan.binary.reason}")
    blocks += ["\n".join(_explained(option)) for option in render(plan)]
    notes = [f"warning: {warning}" for warning in plan.warnings]
    notes += [f"firmware passed over {line}" for line in plan.firmware.passed_over]
    notes += [f"vCPU {index}: CPU {cpus.value} of the host ({cpus.reason})" for index, cpus in enumerate(plan.cpu.pins)]
    notes += explain_memory(plan.memory)
    if plan.boot.credentials:
        notes.append(f"behind the initrd: credentials {', '.join(sorted(plan.boot.credentials.contents.value))}")
    if plan.first_boot:
        notes += plan.first_boot.explained()
    if plan.run_as:
        notes.append(f"runs as the user {plan.run_as.value} ({plan.run_as.reason})")
    return "\n".join(blocks + notes)


def _lines(program: str, options: Iterable[Option]) -> Iterator[str]:
    yield shlex.quote(program)
    for option in options:
        yield shlex.join(option.argv)


def _helper_lines(plan: Plan) -> Iterator[str]:
    for companion in plan.companions:
        yield f"# {_beside(companion)}"
        yield from _lines(companion.program, companion.options)
    if plan.companions:
        yield "# QEMU"


def _beside(companion: Companion) -> str:
    return f"{companion.name}: a helper program, which listens on {companion.socket} before QEMU starts"


def _explained(option: Option) -> Iterator[str]:
    yield shlex.join(option.argv)
    if option.reason and not option.parameters:
        yield f"    {option.reason}"
    width = max((len(str(parameter)) for parameter in option.parameters), default=0)
    for parameter in option.parameters:
        shown = parameter.value if option.verbatim else str(parameter)
        yield f"    {shown:<{min(width, 44)}}  {parameter.reason}"
