"""What a QEMU binary answers when it is asked what it knows.

QEMU is started once on ``-machine none`` with QMP on its standard input and output.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import tempfile
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from sevlaunch.errors import HostError
from sevlaunch.host.facts import DEVICE_PREFIXES, MAX_ANSWERS, QemuFacts

CONFIDENTIAL_OBJECTS = ("sev-guest", "sev-snp-guest")
# The CPU that has all that can be set of any.
_CPU = "max-x86_64-cpu"
# The types of what can be set of it; the rest is what QEMU says of a CPU, or links to other objects.
_CPU_TYPE = r"bool|u?int\d*|str|string|OnOffAuto"
LIMIT = 20.0

# A QMP command and its arguments.
Command = tuple[str, dict[str, Any]]


def ask(binary: str) -> QemuFacts:
    """What ``binary`` knows.

    :raise HostError: when it does not answer like QEMU.
    """
    commands: list[Command] = [
        ("query-version", {}),
        ("query-machines", {}),
        ("query-cpu-definitions", {}),
        ("qom-list-types", {"implements": "device", "abstract": False}),
        ("qom-list-types", {"implements": "user-creatable", "abstract": False}),
        ("qom-list-properties", {"typename": _CPU}),
        ("qom-get", {"path": "/machine", "property": "smp"}),
        *(("qom-list-properties", {"typename": name}) for name in CONFIDENTIAL_OBJECTS),
        ("query-qmp-schema", {}),
    ]
    replies = [reply.get("return") for reply in converse(binary, "none", commands)]
    try:
        return _facts(binary, replies)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HostError(
            f"{binary} does not answer QMP as QEMU does: {type(error).__name__}: {error}",
            hint="try another qemu.binary",
        ) from error


def converse(binary: str, machine: str, commands: Sequence[Command]) -> list[dict[str, Any]]:
    """QEMU's reply to each of ``commands``, with ``return`` or ``error`` in it; QEMU then quits.

    :param machine: what QEMU's ``-machine`` gets, such as ``none,accel=kvm``.
    :raise HostError: when it does not answer like QEMU.
    """
    questions_asked = [("qmp_capabilities", {}), *commands, ("quit", {})]
    script = "".join(json.dumps({"execute": name, "arguments": given}) + "\n" for name, given in questions_asked)
    argv = [binary, "-machine", machine, "-nodefaults", "-no-user-config", "-display", "none", "-S", "-qmp", "stdio"]
    # The questions, with "quit" at their end, are in the pipe before QEMU runs: whatever becomes of us, it ends. QEMU
    # holds the writing end, too: it would drop what it has not read yet when the last writer is gone. The answers go to
    # a file, because at "quit" QEMU drops what a pipe has no room for.
    questions, writer = os.pipe()
    try:
        os.write(writer, script.encode())
        with tempfile.TemporaryFile() as answers:
            result = subprocess.run(
                argv,
                stdin=questions,
                stdout=answers,
                stderr=subprocess.PIPE,
                pass_fds=(writer,),
                # What is no QEMU may never stop to print.
                preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_ANSWERS, MAX_ANSWERS)),
                timeout=LIMIT,
                check=False,
            )
            answers.seek(0)
            lines = answers.read().decode("utf-8", "replace").splitlines() if result.returncode == 0 else []
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"can't ask {binary} what it knows: {error}", hint="try another qemu.binary") from error
    finally:
        os.close(questions)
        os.close(writer)
    replies: list[dict[str, Any]] = []
    for line in lines:
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict) and ("return" in message or "error" in message):
            replies.append(message)
    if len(replies) <= len(commands) or "error" in replies[0]:
        tail = (
            " / ".join(result.stderr.decode("utf-8", "replace").strip().splitlines()[-3:])
            or f"exit code {result.returncode}"
        )
        raise HostError(f"{binary} does not answer QMP as QEMU does: {tail}", hint="try another qemu.binary")
    return replies[1 : len(commands) + 1]


def _facts(binary: str, replies: list[Any]) -> QemuFacts:
    version, machines, cpus, devices, objects, of_cpu, topology, *properties, schema = replies
    aliases = {machine["alias"]: machine["name"] for machine in machines if "alias" in machine}
    number = version["qemu"]
    object_types = sorted(entry["name"] for entry in objects)
    return QemuFacts(
        binary=binary,
        version=f"{number['major']}.{number['minor']}.{number['micro']}",
        package=version.get("package", ""),
        machines=dict(sorted({machine["name"]: machine["name"] for machine in machines}.items())) | aliases,
        most_cpus={machine["name"]: machine["cpu-max"] for machine in sorted(machines, key=itemgetter("name"))},
        topology=sorted(topology or ()),
        cpu_properties={
            entry["name"]: entry["type"]
            for entry in sorted(of_cpu or (), key=itemgetter("name"))
            if re.fullmatch(_CPU_TYPE, entry["type"])
        },
        cpu_models=sorted(entry["name"] for entry in cpus),
        objects={
            name: sorted(entry["name"] for entry in listed if entry["name"] != "type")
            for name, listed in zip(CONFIDENTIAL_OBJECTS, properties, strict=True)
            if name in object_types and listed
        },
        object_types=object_types,
        devices=sorted(entry["name"] for entry in devices if entry["name"].startswith(DEVICE_PREFIXES)),
        netdevs=_enumeration(schema or [], "user", "hubport"),
        aio=_enumeration(schema or [], "threads", "native"),
    )


def _enumeration(schema: list[dict[str, Any]], *known: str) -> list[str]:
    """The values of an enumeration of QMP's schema, which hides its name: it is found by some that it always has."""
    for entry in schema:
        values = entry.get("values", []) if entry.get("meta-type") == "enum" else []
        if set(known) <= set(values):
            return sorted(values)
    return []
