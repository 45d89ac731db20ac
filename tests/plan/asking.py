"""A plan on a real QEMU, paused, and what QEMU answers there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sevlaunch.host.facts import Folders
from sevlaunch.host.images import images_at
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS, qemu_binary_of


def ask(version: str, base: Path, text: str, *commands: tuple[str, dict[str, Any]]) -> list[Any]:
    """What a QEMU answers that runs the plan of a profile; it may not complain of anything.

    Relative paths start at ``base``. Images of disks that are not there are made, a firmware of zeros is ``fw.fd``.
    """
    recorded = Host.load(HOSTS / f"milan-qemu-{version}.json")
    folders = Folders(runtime=str(base / "run"), state=str(base / "state"))
    loaded = loads(text, base=base)
    for disk in loaded.profile.disks:
        if not Path(disk.source).exists():
            Path(disk.source).write_bytes(bytes(1 << 20))
    (base / "fw.fd").write_bytes(bytes(4 << 20))
    host = replace(
        recorded,
        qemu=qemu_facts(qemu_binary_of(version)),
        folders=folders,
        images=images_at(loaded.profile.images),
    )
    plan = resolve(loaded, host)
    plan.qemu_folder.mkdir(parents=True, exist_ok=True)
    plan.state_folder.mkdir(parents=True, exist_ok=True)
    questions = [("qmp_capabilities", {}), *commands, ("quit", {})]
    script = "".join(json.dumps({"execute": name, "arguments": given}) + "\n" for name, given in questions)
    done = subprocess.run(
        [*argv(plan), "-qmp", "stdio"], input=script, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stderr == ""
    replies = [reply for reply in map(json.loads, done.stdout.splitlines()) if "return" in reply or "error" in reply]
    return [reply.get("return", reply.get("error")) for reply in replies[1 : len(commands) + 1]]
