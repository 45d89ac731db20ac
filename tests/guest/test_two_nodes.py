"""A cluster of two machines, with Debian's Pacemaker and Corosync: what becomes of a guest whose machine is cut off."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import PROFILES, ROOT

pytestmark = pytest.mark.soak

ROUNDS = 20
LIMIT = 60 * ROUNDS
# A machine's name is its own; what is for one user's folders is none of a cluster's business.
COMMAND = """\
#!/bin/sh
export PYTHONPATH={root} XDG_STATE_HOME={base}/$(hostname)/state
[ "$1" != up ] || set -- "$@" --rehearse --paused
exec {python} -m sevlaunch "$@"
"""


# What a machine is made of; $1 is an empty folder.
PROBE = """\
set -e
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work"
mount -t overlay -o "lowerdir=/usr,upperdir=$1/upper,workdir=$1/work" overlay /usr
ip link add room type bridge
ip link add one type veth peer name eth0
"""
NAMESPACES = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def need_machines(base: Path) -> None:
    """Skips by name where the two can't be made."""
    folder = base / "probe"
    folder.mkdir()
    words = [*NAMESPACES, "sh", "-c", PROBE, "sh", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no machines of a cluster can be made here: {done.stderr.strip()[-300:]}")


@pytest.fixture
def room(base: Path) -> Path:
    """A folder with what tests/guest/cluster_room.py takes; skips by name where there can be none."""
    needs.root("two machines in namespaces")
    needs.rehearsal()
    needs.file_of("resource-agents", "/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs")
    for program, package in (("ip", "iproute2"), ("unshare", "util-linux"), ("nsenter", "util-linux")):
        needs.program(program, package)
    need_machines(base)
    shutil.copy(ROOT / "scripts/ocf/sevlaunch", base / "agent")
    command = base / "sevlaunch"
    command.write_text(COMMAND.format(root=ROOT, base=base, python=sys.executable))
    command.chmod(0o755)
    (base / "disk.raw").write_bytes(bytes(1 << 20))
    profile = {
        "extends": str(PROFILES / "sev-es.yaml"),
        "memory": "128M",
        "cpus": 1,
        "networks": [],
        "firmware": {"image": str(needs.amdsev_image())},
        "disks": [{"path": str(base / "disk.raw")}],
    }
    (base / "web.yaml").write_text(json.dumps(profile))
    return base


def test_a_guest_comes_up_on_the_other_machine_once_its_own_is_fenced(room: Path) -> None:
    words = ["-m", "tests.guest.cluster_room", str(needs.cluster()), str(room), str(ROUNDS)]
    command = [*NAMESPACES, sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    print(done.stdout)
    assert len(rounds) == ROUNDS
    measurements = [seen["evidence"][0]["measurement"] for seen in rounds]
    measurements.append(rounds[-1]["evidence"][1]["measurement"])
    # Each launch is one of its own.
    assert len(set(measurements)) == ROUNDS + 1
    place = rounds[0]["from"]
    for number, seen in enumerate(rounds, start=1):
        assert seen["from"] == place
        place = seen["to"]
        assert place != seen["from"]
        assert seen["fenced"] == [seen["from"]]
        # It was cut off, not dead: without fencing there would have been two.
        assert seen["ran_until_fenced"] is True
        assert seen["started_after_fencing"] is True
        assert seen["most_at_once"] == 1
        # Those of both machines since the beginning: no round starts another one that is gone again.
        assert seen["qemus"] == number + 1
        assert seen["state"] == "paused"
        assert all(one["rehearsal"] for one in seen["evidence"])
