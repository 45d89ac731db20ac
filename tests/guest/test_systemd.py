"""The unit under a real systemd, booted by systemd-nspawn on top of this machine's own files without changing them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.plan.unit import exec_line, quote, quote_path
from tests import needs
from tests.conftest import ROOT, Command, qemu_binary_of
from tests.guest.support import PLAIN
from tests.guest.tiny_firmware import POWERS_OFF, options_for, prints

pytestmark = pytest.mark.long

# $1 is an empty folder, $2 the folder of this test, the rest are options of systemd-nspawn. What the system writes is
# in memory, and gone with the namespace.
BOOT = """\
set -e
mount -t tmpfs -o mode=0755 none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
rm -f "$1/root/etc/machine-id"
cp "$2"/*.service "$1/root/etc/systemd/system/"
root=$1/root folder=$2
shift 2
exec systemd-nspawn -q -D "$root" --register=no --keep-unit --console=pipe --bind="$folder" "$@" \\
    -b systemd.unit=test.service < /dev/null
"""
TEST_UNIT = """\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
WorkingDirectory={folder}
ExecStart=sh -eux {folder}/script
ExecStopPost=systemctl --force --force poweroff
StandardError=append:{folder}/told
"""
UNIT = "sevlaunch-plain.service"
# show: what systemd knows of the service, as a line of JSON; qemu: the PID of its QEMU.
SCRIPT = f"""\
show() {{
    systemctl show {UNIT} -p ActiveState -p Result -p ExecMainStatus -p NRestarts |
        sed 's/^\\(.*\\)=\\(.*\\)$/"\\1": "\\2"/' | paste -sd, | sed 's/.*/{{&}}/' >> seen
}}
qemu() {{
    {sys.executable} -m sevlaunch status plain --format json | sed -n 's/^  "pid": \\([0-9]*\\),$/\\1/p'
}}
"""
START = f"systemctl start {UNIT} || {{ journalctl -u {UNIT} --no-pager -o cat >&2; false; }}\n"
LIMIT = 120


def seen_in(base: Path, unit: str, steps: str, *options: str, before: str = "") -> list[dict[str, Any]]:
    """What `show` saw in a system with the unit; skips by name where no such system can be had.

    :param steps: a shell script, after the unit was started.
    :param options: of systemd-nspawn.
    :param before: a shell script, before that.
    """
    needs.root("booting a systemd")
    if ROOT.is_relative_to("/tmp"):
        pytest.skip("no systemd can be booted here: it has a /tmp of its own, and the project is in this one")
    needs.program("systemd-nspawn", "systemd-container")
    folder, place = base / "shared", base / "system"
    folder.mkdir(exist_ok=True)
    place.mkdir()
    (folder / UNIT).write_text(unit)
    (folder / "test.service").write_text(TEST_UNIT.format(folder=folder))
    (folder / "script").write_text(SCRIPT + before + START + steps)
    namespaces = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "sh"]
    done = subprocess.run(
        [*namespaces, str(place), str(folder), *options], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    told = folder / "told"
    if not told.exists():
        pytest.skip(f"no systemd can be booted here: {done.stderr.strip()[-300:]}")
    seen = folder / "seen"
    assert seen.exists(), told.read_text()
    found = [json.loads(line) for line in seen.read_text().splitlines()]
    assert len(found) == steps.count("show\n"), told.read_text()
    return found


@pytest.fixture
def unit(sevlaunch: Command) -> Iterator[str]:
    """The unit of a guest that hears its power button."""
    with unit_of(sevlaunch) as text:
        yield text


@contextmanager
def unit_of(sevlaunch: Command, *more: str, first: bytes = b"") -> Iterator[str]:
    """As the fixture, with more options, and code that comes first."""
    options = options_for(sevlaunch.base, qemu_binary_of("10.0"), first + POWERS_OFF)
    firmware = sevlaunch.base / "firmware.bin"
    # The unit sees no other's /tmp.
    place = Path("/var/lib") / f"sevlaunch-test-{os.getpid()}.bin"
    shutil.copyfile(firmware, place)
    try:
        yield sevlaunch("unit", PLAIN, *(word.replace(str(firmware), str(place)) for word in options), *more).stdout
    finally:
        place.unlink()


WORDS = [
    "a b",
    "$HOME ${HOME}",
    "%n",
    "x\rUser=evil\rx",
    "two\nlines\t",
    "\x1b\x7f\x85\u2028",
    "\udcff",
    "'\"\\",
    ";",
    "",
    "é",
]
WRITES = "import os, sys; print(ascii([*sys.argv[2:], os.environ['WORD']]), file=open(sys.argv[1] + '/words', 'w'))"


def test_words_and_paths_arrive_as_they_are(base: Path) -> None:
    place = base / "shared/a $b %n 'c' \"d\" \\"
    place.mkdir(parents=True)
    settings = [
        "[Service]",
        "Type=oneshot",
        "ProtectSystem=strict",
        # What is not named here is not written.
        f"ReadWritePaths={quote_path(str(place))}",
        f"Environment={quote('WORD=' + WORDS[1])}",
        f"ExecStart={exec_line(sys.executable, '-c', WRITES, str(place), *WORDS)}",
    ]
    seen_in(base, "\n".join([*settings, ""]), "show\n")
    assert (place / "words").read_text() == ascii([*WORDS, WORDS[1]]) + "\n"


def test_a_stop_is_a_success_and_a_kill_starts_it_anew(unit: str, base: Path) -> None:
    after_start, after_kill, after_stop = seen_in(
        base,
        unit,
        f"""\
show
before=$(qemu)
kill -KILL "$before"
while [ "$(systemctl show {UNIT} -p NRestarts --value)" = 0 ]; do sleep 0.1; done
systemctl start {UNIT}
show
systemctl stop {UNIT}
show
""",
    )
    assert (after_start["ActiveState"], after_start["NRestarts"]) == ("active", "0")
    assert (after_kill["ActiveState"], after_kill["NRestarts"]) == ("active", "1")
    assert after_stop == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0", "NRestarts": "1"}


def test_an_end_of_its_own_and_a_stop_during_the_start_are_successes(unit: str, base: Path) -> None:
    by_itself, stopped = seen_in(
        base,
        unit,
        f"""\
kill -TERM "$(qemu)"
while [ "$(systemctl show {UNIT} -p ActiveState --value)" != inactive ]; do sleep 0.1; done
show
sed -i 's/--foreground/--foreground --wait console:never --wait-timeout 600/' /etc/systemd/system/{UNIT}
systemctl daemon-reload
systemctl start --no-block {UNIT}
while [ "$(systemctl show {UNIT} -p ActiveState --value)" != activating ]; do sleep 0.1; done
systemctl stop {UNIT}
show
""",
    )
    assert by_itself == {"ActiveState": "inactive", "Result": "success", "ExecMainStatus": "0", "NRestarts": "0"}
    assert (stopped["ActiveState"], stopped["Result"]) == ("inactive", "success")


# A bridge, and a way out that leads nowhere, for passt takes the addresses of one.
NETWORK = """\
ip link add br0 type bridge
mkdir -p /etc/qemu
echo "allow br0" > /etc/qemu/bridge.conf
ip link add out0 type veth peer name out1
ip address add 192.0.2.2/24 dev out0
ip link set out0 up
ip link set out1 up
ip route add default via 192.0.2.1
"""


def test_what_devices_and_helpers_need_is_in_the_unit(sevlaunch: Command, base: Path) -> None:
    for program, package in (("passt", "passt"), ("swtpm", "swtpm"), ("ip", "iproute2")):
        needs.program(program, package)
    if not Path("/dev/net/tun").exists():
        pytest.skip("no /dev/net/tun")
    shared = Path("/var/lib") / f"sevlaunch-test-{os.getpid()}"
    shared.mkdir()
    try:
        options = ("tpm=true", f"shares=[{{path: {shared}, tag: data}}]", "rng={source: /dev/urandom}")
        networks = "networks=[{type: bridge, bridge: br0}, {type: passt}]"
        words = [word for option in (*options, networks) for word in ("--set", option)]
        steps = f"show\nsystemctl stop {UNIT}\nshow\n"
        with unit_of(sevlaunch, *words) as unit:
            started, stopped = seen_in(base, unit, steps, "--private-network", "--bind=/dev/net/tun", before=NETWORK)
    finally:
        shared.rmdir()
    assert (started["ActiveState"], started["NRestarts"]) == ("active", "0")
    assert (stopped["ActiveState"], stopped["Result"]) == ("inactive", "success")


def test_the_console_is_in_the_journal(sevlaunch: Command, base: Path) -> None:
    first = prints(b"Linux \x1b[1mboots\x1b[0m\r\n\r\na\x07\xff\r\n# ")
    # A prompt is no line before the end.
    steps = f"""\
while ! journalctl SEVLAUNCH_GUEST=plain -o cat | grep -q a; do sleep 0.1; done
show
systemctl stop {UNIT}
show
while ! journalctl SEVLAUNCH_GUEST=plain -o cat | grep -q '#'; do sleep 0.1; done
journalctl SEVLAUNCH_GUEST=plain -o json > journal
"""
    with unit_of(sevlaunch, "--set", "console_journal=true", first=first) as unit:
        started, stopped = seen_in(base, unit, steps)
    assert (started["ActiveState"], stopped["ActiveState"]) == ("active", "inactive")
    entries = [json.loads(line) for line in (base / "shared/journal").read_text().splitlines()]
    assert [entry["MESSAGE"] for entry in entries] == ["Linux boots", "a\\x07\\xff", "# "]
    for entry in entries:
        assert (entry["SYSLOG_IDENTIFIER"], entry["_SYSTEMD_UNIT"], entry["PRIORITY"]) == ("sevlaunch-plain", UNIT, "6")
