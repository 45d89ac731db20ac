"""A distribution's own system on a disk boots with each firmware that a plan chooses, on each Debian's packages.

Under TCG, without encryption, and with the devices of an encrypted guest: what is seen is that firmware and disk fit.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sevlaunch.host.model import Host
from sevlaunch.plan.firmware import FirmwarePlan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, Command, wait_for_console
from tests.guest.support import some_qemu
from tests.plan.debian import debian

LIMIT = 900.0
PROMPT = "debian login:"

pytestmark = pytest.mark.soak


def chosen(suite: str, security: str) -> FirmwarePlan:
    """The firmware that a guest of a type gets for its disk, on a host with the packages of that Debian."""
    host = debian(suite, Host.load(HOSTS / "milan-qemu-10.0.json"))
    return resolve(loads(f"name: g\nsecurity: {security}\ndisks: [{{path: /d.qcow2}}]\n", file="g.yaml"), host).firmware


def named(suite: str, plan: FirmwarePlan) -> str:
    """The same firmware as a profile names it, where the packages are unpacked."""
    root = needs.debian_firmware(suite)
    if plan.kind == "image":
        return f"{{image: {root}{plan.code.value}}}"
    return f"{{code: {root}{plan.code.value}, vars: {root}{plan.vars_template}}}"


def overlay(base: Path, name: str) -> Path:
    """A disk that begins as the Debian one, of which nothing is written."""
    program = needs.program("qemu-img", "qemu-utils")
    disk = base / name
    words = [program, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(needs.debian_disk()), str(disk)]
    subprocess.run(words, check=True, timeout=60)
    return disk


def boot(sevlaunch: Command, firmware: str, *, disks: str, networks: str = "[{type: user}]") -> None:
    """Start the guest, wait for its prompt, and end it."""
    profile = sevlaunch.base / "debian.yaml"
    profile.write_text(f"memory: 1G\ncpus: 2\naccel: tcg\nfirmware: {firmware}\ndisks: {disks}\nnetworks: {networks}\n")
    sevlaunch("up", profile, *some_qemu())
    wait_for_console(sevlaunch, "debian", PROMPT, limit=LIMIT)
    sevlaunch("down", "debian", "--now")
    assert sevlaunch.left_behind() == []


@pytest.mark.parametrize("suite", ["12", "13", "sid"])
@pytest.mark.parametrize(
    "types",
    [("none", "sev", "sev-es"), ("sev-snp", "{type: sev-es, legacy_vm_type: false}")],
    ids=["pflash", "image"],
)
def test_each_firmware_boots_the_disk(suite: str, types: tuple[str, ...], sevlaunch: Command) -> None:
    # What several types get is booted once.
    (firmware,) = {named(suite, chosen(suite, security)) for security in types}
    disk = overlay(sevlaunch.base, "disk.qcow2")
    boot(sevlaunch, firmware, disks=f"[{{path: {disk}}}]")


def test_what_comes_and_goes_beside_the_disk_does_not_matter(sevlaunch: Command) -> None:
    firmware = named("13", chosen("13", "none"))
    disk, iso, further = overlay(sevlaunch.base, "disk.qcow2"), sevlaunch.base / "x.iso", sevlaunch.base / "further.raw"
    for file in (iso, further):
        file.write_bytes(bytes(1 << 20))
    both = "[{type: user}, {type: user}]"
    boot(sevlaunch, firmware, disks=f"[{{path: {disk}}}, {{path: {iso}, cdrom: true, bus: sata}}]", networks=both)
    boot(sevlaunch, firmware, disks=f"[{{path: {disk}}}, {{path: {further}}}]")
