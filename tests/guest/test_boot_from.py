"""What is taken from a disk's image boots: real QEMU, real OVMF, systemd's stub, and what the guest itself says."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sevlaunch.contents.taking import take
from sevlaunch.contents.volume import open_volume
from tests import needs
from tests.conftest import VERSIONS, Command, qemu_binary_of, wait_for_console
from tests.contents.disks import ESP, add_sections, disk, fat
from tests.guest.support import some_qemu

pytestmark = pytest.mark.long

LIMIT = 600.0
# As in profiles/demo.yaml.
CMDLINE = "console=ttyS0 quiet cryptomgr.notests no_timer_check"
# An emulated processor has late timers, which Linux would take for broken ones, and waits long for its disks.
PATIENT = "no_timer_check systemd.default_device_timeout_sec=600"


def profile(sevlaunch: Command, name: str, boot: str) -> Path:
    """A guest with the image of that name."""
    sevlaunch.environment["XDG_CACHE_HOME"] = str(sevlaunch.base / "cache")
    ovmf = "{{code: {}, vars: {}}}".format(*needs.ovmf())
    file = sevlaunch.base / "g.yaml"
    file.write_text(
        f"memory: 512M\naccel: tcg\nfirmware: {ovmf}\nboot: {boot}\ndisks: [{{overlay: ephemeral, image: {name}}}]\n"
        "networks: []\n"
    )
    return file


def unified(cmdline: str) -> bytes:
    """The demo guest's kernel and initrd as systemd's stub boots them."""
    build = needs.demo_guest()
    sections = [
        (".osrel", b'ID=demo\nPRETTY_NAME="Demo Linux"\n'),
        (".cmdline", cmdline.encode() + b"\n\0"),
        (".initrd", (build / "initrd.img").read_bytes()),
        (".linux", (build / "vmlinuz").read_bytes()),
    ]
    return add_sections(needs.systemd_stub().read_bytes(), sections)


def booted(sevlaunch: Command, file: Path) -> str:
    """The command line that the guest's kernel says it has."""
    sevlaunch("up", file, *some_qemu())
    console = wait_for_console(sevlaunch, "g", "demo: ready", limit=LIMIT)
    sevlaunch("down", "g", "--now")
    assert sevlaunch.left_behind() == []
    (found,) = [line for line in console.splitlines() if line.startswith("demo: cmdline ")]
    return found.removeprefix("demo: cmdline ")


def test_the_kernel_of_a_boot_loaders_entry(sevlaunch: Command) -> None:
    build = needs.demo_guest()
    files = {
        "loader/entries/demo.conf": f"title Demo\nlinux /demo/linux\ninitrd /demo/initrd\noptions {CMDLINE}\n".encode(),
        "demo/linux": (build / "vmlinuz").read_bytes(),
        "demo/initrd": (build / "initrd.img").read_bytes(),
    }
    parts = [(ESP, fat(sevlaunch.base / "esp", files))]
    disk(sevlaunch.base / "disk.qcow2", parts, qcow2=True)
    found = booted(sevlaunch, profile(sevlaunch, "disk.qcow2", "{from: disk0, cmdline_extra: one.more=1}"))
    assert found.startswith(f"{CMDLINE} one.more=1")


@pytest.mark.parametrize(
    ("boot", "wanted"),
    [("{from: disk0}", f"{CMDLINE} its.own"), ("{from: disk0, cmdline_extra: more}", f"{CMDLINE} its.own more")],
)
def test_a_unified_image(boot: str, wanted: str, sevlaunch: Command) -> None:
    parts = [(ESP, fat(sevlaunch.base / "esp", {"EFI/Linux/demo.efi": unified(f"{CMDLINE} its.own")}))]
    disk(sevlaunch.base / "disk", parts)
    found = booted(sevlaunch, profile(sevlaunch, "disk.raw", boot))
    # The stub may add which console there is.
    assert found.startswith(wanted) and found.count("its.own") == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_qemu_hands_a_unified_image_no_initrd(version: str, tmp_path: Path) -> None:
    image, initrd = tmp_path / "linux.efi", needs.demo_guest() / "initrd.img"
    image.write_bytes(unified(CMDLINE))
    words = [qemu_binary_of(version), "-machine", "q35", "-accel", "tcg", "-S", "-display", "none", "-nodefaults"]
    words += ["-kernel", str(image), "-initrd", str(initrd)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "too old to load a ram disk" in done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("release", [12, 13])
def test_a_debian_by_its_own_entry(release: int, sevlaunch: Command) -> None:
    boot_debian(sevlaunch, profile(sevlaunch, str(needs.debian_disk(release)), "{from: disk0}"), release)


@pytest.mark.soak
def test_a_debian_by_a_unified_image_of_another_disk(sevlaunch: Command) -> None:
    with needs.debian_disk().open("rb") as stream:
        found = take(open_volume(stream))
    assert found.initrd and found.cmdline
    sections = [(".cmdline", found.cmdline.encode()), (".initrd", found.initrd), (".linux", found.kernel)]
    image = add_sections(needs.systemd_stub().read_bytes(), sections)
    disk(sevlaunch.base / "disk", [(ESP, fat(sevlaunch.base / "esp", {"EFI/Linux/debian.efi": image}))])
    boot_debian(sevlaunch, profile(sevlaunch, f"{needs.debian_disk()}}}, {{image: disk.raw", "{from: disk1}"), 13)


def boot_debian(sevlaunch: Command, file: Path, release: int) -> None:
    """Start it, wait until the system on its root has begun, and end it."""
    sevlaunch(
        "up", file, *some_qemu(), "--set", "memory=1G", "--set", "cpus=2", "--set", f"boot.cmdline_extra={PATIENT}"
    )
    wait_for_console(sevlaunch, "g", f"Debian GNU/Linux {release} (", limit=LIMIT)
    sevlaunch("down", "g", "--now")
    assert sevlaunch.left_behind() == []
