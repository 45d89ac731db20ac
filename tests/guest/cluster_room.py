"""Two machines of a Pacemaker cluster in namespaces: cables that can be pulled, and a switch for the power of each.

A machine has its own processes, mounts, network and name, and on top of the system's own files what Debian's packages
have for a cluster. Its power is cut by killing its first process, with which the kernel ends all others. The switch is
reached through the same cables, so a machine that is cut off can't use it.

Run as root, in namespaces that end with it::

    unshare --net --mount --pid --fork --kill-child --mount-proc \\
        python -m tests.guest.cluster_room PACKAGES FOLDER ROUNDS

FOLDER has the resource agent as `agent`, and the guest's `web.yaml`, `disk.raw` and `sevlaunch`, which is its command.
What each round showed is printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.guest.cluster_files import ADDRESSES, CIB, COROSYNC, FENCE_AGENT, MACHINE, SWITCH

# Seconds for one step of a round.
LIMIT = 120.0
_TICKS = os.sysconf("SC_CLK_TCK")


def run(*command: str) -> None:
    """Run a command that has to succeed."""
    subprocess.run(command, check=True)


def now() -> float:
    """Seconds since the machine was switched on, by which the kernel notes when processes start, too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Machine:
    """One of the two."""

    def __init__(self, name: str, packages: Path, folder: Path) -> None:
        self.name = name
        self._packages = packages
        self._room = folder
        self._folder = folder / name
        self._unshare: subprocess.Popen[bytes] | None = None
        self._init = 0
        (self._folder / "cib").mkdir(parents=True)
        (self._folder / "cib/cib.xml").write_text(CIB.format(folder=folder))

    def switch_on(self) -> None:
        """Switch it on, with its cable plugged in."""
        namespaces = (
            "--net",
            "--mount",
            "--pid",
            "--uts",
            "--ipc",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        )
        words = (str(self._packages), str(self._room), str(self._folder), self.name, ADDRESSES[self.name])
        environment = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
        with (self._folder / "output").open("ab") as output:
            self._unshare = subprocess.Popen(
                ["unshare", *namespaces, "sh", "-c", MACHINE, "sh", *words],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        self._init = int(wait_for(lambda: children.read_text().split(), f"the first process of {self.name}")[0])
        # The other end goes with the machine's network.
        run("ip", "link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", str(self._init))
        run("ip", "link", "set", self.name, "master", "room", "up")

    def switch_off(self) -> None:
        """End all its processes. Once this returns, none of them is there."""
        assert self._unshare
        os.kill(self._init, signal.SIGKILL)
        # A first process is not over before the last of its processes is.
        self._unshare.wait()
        # Its network goes a moment later, and this end of the cable with it.
        wait_for(
            lambda: self.name not in [name for _, name in socket.if_nameindex()],
            f"the end of the network of {self.name}",
        )

    def pull_cable(self) -> None:
        """Cut it off."""
        run("ip", "link", "set", self.name, "down")

    @property
    def space(self) -> str:
        """By which its processes are known."""
        return str(Path(f"/proc/{self._init}/ns/pid").readlink())

    def __call__(self, *command: str) -> str:
        """Run a command on it; empty where it fails."""
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", "--all", "--", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT,
        )
        return done.stdout if done.returncode == 0 else ""

    def sees(self) -> tuple[dict[str, bool], str | None]:
        """Which machines are in the cluster and ready, and where the guest runs, as this one's Pacemaker tells it."""
        text = self("crm_mon", "-1", "--output-as=xml")
        if not text:
            return {}, None
        tree = ElementTree.fromstring(text)
        nodes = {
            node.attrib["name"]: node.get("online") == "true" and node.get("pending") == node.get("unclean") == "false"
            for node in tree.iterfind("./nodes/node")
        }
        place = tree.find("./resources/resource[@id='web'][@role='Started'][@failed='false']/node")
        return nodes, None if place is None else place.attrib["name"]


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of ``condition``."""
    end = time.monotonic() + LIMIT
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.05)
    return value


class Watch(threading.Thread):
    """Looks at all processes, as often as it can: which QEMUs with the disk there are, on which machine."""

    def __init__(self, disk: Path) -> None:
        super().__init__(daemon=True)
        self._disk = os.fsencode(disk)
        # By PID and by when it began: the namespace that it belongs to. PIDs and numbers of namespaces come again.
        self.seen: dict[tuple[int, float], str] = {}
        self.most = self.looks = 0

    def run(self) -> None:
        """Look for ever."""
        while True:
            self.look()

    def look(self) -> list[str]:
        """The namespaces of those that are there now."""
        found = []
        for process in Path("/proc").iterdir():
            try:
                if process.name.isdigit() and self._is_qemu((process / "cmdline").read_bytes()):
                    space = str((process / "ns/pid").readlink())
                    # Field 22; the name in field 2 may hold anything.
                    ticks = int((process / "stat").read_text().rpartition(")")[2].split()[19])
                    self.seen[int(process.name), ticks / _TICKS] = space
                    found.append(space)
            except OSError:
                continue
        self.most = max(self.most, len(found))
        self.looks += 1
        return found

    def _is_qemu(self, line: bytes) -> bool:
        return b"-chardev" in line.split(b"\0") and self._disk in line

    def began(self, space: str) -> list[float]:
        """When those of a namespace began."""
        return [began for (_, began), where in list(self.seen.items()) if where == space]


class Room:
    """The machines, the cables between them, and the switch."""

    def __init__(self, packages: Path, folder: Path) -> None:
        (folder / "corosync.conf").write_text(COROSYNC)
        (folder / "fence").write_text(FENCE_AGENT.format(python=sys.executable, switch=SWITCH))
        self.machines = {name: Machine(name, packages, folder) for name in ADDRESSES}
        self.watch = Watch(folder / "disk.raw")
        # Who was switched off, whether its guest ran at that moment, and when nothing of it ran any more.
        self.fenced: list[tuple[str, bool, float]] = []
        self._command = str(folder / "sevlaunch")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "room", "type", "bridge")
        run("ip", "address", "add", f"{SWITCH[0]}/24", "dev", "room")
        run("ip", "link", "set", "room", "up")
        room = self

        class Answer(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                action, name = self.rfile.readline().decode().split()
                if action == "off":
                    room.cut_power(room.machines[name])
                self.wfile.write(b"done\n")

        self._switch = socketserver.ThreadingTCPServer(SWITCH, Answer)
        threading.Thread(target=self._switch.serve_forever, daemon=True).start()
        self.watch.start()

    def cut_power(self, machine: Machine) -> None:
        """What the switch does."""
        ran = machine.space in self.watch.look()
        machine.switch_off()
        self.fenced.append((machine.name, ran, now()))

    def begin(self) -> str:
        """Switch on both; where the guest runs then."""
        for machine in self.machines.values():
            machine.switch_on()
        one = next(iter(self.machines.values()))
        return str(wait_for(lambda: all(self._ready(one).values()) and one.sees()[1], "a guest in a whole cluster"))

    def _ready(self, machine: Machine) -> dict[str, bool]:
        nodes, _ = machine.sees()
        return {name: nodes.get(name, False) for name in self.machines}

    def evidence(self, machine: Machine) -> Any:
        """What the launch of the guest showed."""
        return json.loads(self.waited(machine, "evidence"))

    def waited(self, machine: Machine, command: str) -> str:
        """What the command prints of the guest, once it does."""
        return str(wait_for(lambda: machine(self._command, command, "web", "--format", "json"), f"{command} of web"))

    def round(self, place: str) -> tuple[str, dict[str, Any]]:
        """Cut off the machine that the guest runs on; where it runs then, and what was seen."""
        [other] = set(self.machines) - {place}
        lost, left = self.machines[place], self.machines[other]
        before = self.evidence(lost)
        self.fenced.clear()
        begin = now()
        lost.pull_cable()
        wait_for(lambda: left.sees()[1] == other, f"the guest on {other}")
        took = now() - begin
        after = self.evidence(left)
        fenced, began = list(self.fenced), self.watch.began(left.space)
        seen = {
            "from": place,
            "to": other,
            "fenced": [name for name, _, _ in fenced],
            "ran_until_fenced": all(ran for _, ran, _ in fenced),
            # The kernel counts in ticks.
            "started_after_fencing": max(began) >= max(at for _, _, at in fenced) - 1 / _TICKS,
            "qemus": len(self.watch.seen),
            "state": json.loads(self.waited(left, "status"))["state"],
            "evidence": [{key: one[key] for key in ("measurement", "rehearsal")} for one in (before, after)],
            "most_at_once": self.watch.most,
            "looks": self.watch.looks,
            "seconds": round(took, 1),
        }
        lost.switch_on()
        wait_for(lambda: all(self._ready(left).values()), f"{place} in the cluster again")
        return other, seen


def main(packages: str, folder: str, rounds: str) -> None:
    """Cut off the guest's machine again and again."""
    room = Room(Path(packages), Path(folder))
    place = room.begin()
    for _ in range(int(rounds)):
        place, seen = room.round(place)
        print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
