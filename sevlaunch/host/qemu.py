"""What a QEMU binary knows, asked from the binary itself and cached.

QEMU is started once on ``-machine none`` with QMP on its standard input and output; the answers are kept in the user's
cache folder under the binary's path, size and time of change.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import resource
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from sevlaunch.atomic import make_private_folder
from sevlaunch.documents import decode
from sevlaunch.errors import HostError
from sevlaunch.host.facts import QemuFacts
from sevlaunch.host.folders import base_folder
from sevlaunch.remedies import INSTALL_QEMU

BINARY_NAMES = ("qemu-system-x86_64", "qemu-kvm", "/usr/libexec/qemu-kvm", "/usr/bin/qemu-kvm")
CONFIDENTIAL_OBJECTS = ("sev-guest", "sev-snp-guest")
DEVICE_PREFIXES = (
    "virtio-",
    "vhost-",
    "qxl",
    "VGA",
    "ide-hd",
    "ide-cd",
    "scsi-hd",
    "scsi-cd",
    "virtconsole",
    "ich9-ahci",
    "nvme",
    "e1000e",
    "qemu-xhci",
    "usb-tablet",
    "tpm-",
    "intel-iommu",
    "i6300esb",
    "pvpanic",
    "isa-serial",
)
# The CPU that has all that can be set of any.
_CPU = "max-x86_64-cpu"
# The types of what can be set of it; the rest is what QEMU says of a CPU, or links to other objects.
_CPU_TYPE = re.compile(r"bool|u?int\d*|str|string|OnOffAuto")
# Devices can live in modules, which are installed apart from the binary.
MODULE_FOLDERS = ("/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib/qemu", "/usr/lib64/qemu", "/usr/lib64/qemu-kvm")
LIMIT = 20.0
MAX_ANSWERS = 16 << 20

# A QMP command and its arguments.
Command = tuple[str, dict[str, Any]]


def find_binary(wanted: str = "auto") -> str:
    """The absolute path of the QEMU binary.

    :raise HostError: when there is none.
    """
    if wanted != "auto":
        if os.access(wanted, os.X_OK) and Path(wanted).is_file():
            return wanted
        found = "which is not an executable file" if Path(wanted).exists() else "which does not exist"
        raise HostError(f"wanted the QEMU binary {wanted}, {found}", hint="correct qemu.binary in the profile")
    for name in BINARY_NAMES:
        binary = shutil.which(name)
        if binary:
            return binary
    raise HostError(
        "QEMU is missing: no qemu-system-x86_64 on PATH",
        hint=f"{INSTALL_QEMU}, or name it in qemu.binary",
    )


def qemu_facts(binary: str) -> QemuFacts:
    """What ``binary`` knows, from the cache or from itself.

    :raise HostError: when it does not answer like QEMU.
    """
    cache = _cache_file(binary)
    # A cache that can't be read, or has another shape, is as good as none.
    with contextlib.suppress(OSError, ValueError):
        known = decode(_read_own(cache), QemuFacts)
        # What is there is run by this name.
        if known.binary == binary:
            return known
    facts = _ask(binary)
    # Without a cache the next command asks again, nothing else.
    with contextlib.suppress(OSError):
        make_private_folder(cache.parent)
        if cache.parent.stat().st_uid == os.geteuid():
            # One that was made before, with the umask of that time.
            cache.parent.chmod(0o700)
        with tempfile.NamedTemporaryFile("w", dir=cache.parent, delete=False) as stream:
            stream.write(msgspec.json.encode(facts).decode())
        Path(stream.name).replace(cache)
    return facts


def _read_own(cache: Path) -> bytes:
    """A file of this user's that nobody else could have written.

    :raise OSError: when it is none.
    """
    fd = os.open(cache, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as stream:
        for found in (os.fstat(fd), cache.parent.stat()):
            if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                raise PermissionError(f"{cache} may be another user's")
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(f"{cache} is no regular file")
        return stream.read(MAX_ANSWERS)


def _cache_file(binary: str) -> Path:
    root = base_folder("XDG_CACHE_HOME") or Path.home() / ".cache"
    # The file behind a wrapper or an alternative is what changes when QEMU is updated.
    status = Path(binary).resolve().stat()
    modules = [Path(folder).stat().st_mtime_ns for folder in MODULE_FOLDERS if Path(folder).is_dir()]
    asked = (QemuFacts.__struct_fields__, DEVICE_PREFIXES)
    key = f"{asked}\0{binary}\0{status.st_size}\0{status.st_mtime_ns}\0{modules}"
    return root / "sevlaunch" / f"qemu-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def _ask(binary: str) -> QemuFacts:
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
            if _CPU_TYPE.fullmatch(entry["type"])
        },
        cpu_models=sorted(entry["name"] for entry in cpus),
        objects={
            name: sorted(entry["name"] for entry in listed if entry["name"] != "type")
            for name, listed in zip(CONFIDENTIAL_OBJECTS, properties, strict=True)
            if name in object_types and listed
        },
        object_types=object_types,
        devices=sorted(entry["name"] for entry in devices if entry["name"].startswith(DEVICE_PREFIXES)),
        netdevs=_netdev_types(schema or []),
    )


def _netdev_types(schema: list[dict[str, Any]]) -> list[str]:
    """The values of the enumeration NetClientDriver: the schema hides its name, so it is found by two of its values."""
    for entry in schema:
        values = entry.get("values", []) if entry.get("meta-type") == "enum" else []
        if "user" in values and "hubport" in values:
            return sorted(values)
    return []
