"""What is written to a disk of an image that is never written: kept for the next start, or gone with the guest."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.guest.locks import DISKS
from sevlaunch.host.accounts import find_account, may
from tests import needs
from tests.conftest import VERSIONS, Command, qemu_binary_of, wait_for_console, wait_until
from tests.guest.bootable import write_bootable
from tests.guest.support import (
    JSON,
    lock_of,
    no_traceback,
    nothing_left,
    ordinary_user,
    pause_until,
    some_qemu,
    tries,
    with_qemu,
)
from tests.guest.test_run_as import reachable, user
from tests.plan.test_overlays import qcow2

__all__ = ["reachable", "user"]

MIB = 1 << 20
QEMU_IO = "qemu-io"


@pytest.fixture
def image(base: Path) -> Path:
    """A qcow2 image of 8 MiB with sevens in its first MiB."""
    path = base / "noble.img"
    subprocess.run([needs.program("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", path, "8M"], check=True)
    subprocess.run([needs.program(QEMU_IO, "qemu-utils"), "-f", "qcow2", "-c", "write -q -P 7 0 1M", path], check=True)
    return path


def profile_of(command: Command, *disks: dict[str, Any], **more: Any) -> Path:
    """A profile of a plain guest ``g``."""
    file = command.base / "g.yaml"
    file.write_text(json.dumps({"accel": "tcg", "memory": "64M", "disks": disks, **more}))
    return file


def overlays(command: Command, name: str = "g") -> list[Path]:
    """The overlays that are kept."""
    return sorted((command.state / name).glob("*/*.qcow2"))


def write(overlay: Path, command: str = "write -q -P 9 0 1M") -> None:
    """Write to an overlay, as a guest would."""
    subprocess.run([needs.program(QEMU_IO, "qemu-utils"), "-f", "qcow2", "-c", command, overlay], check=True)


def unnamed_disk(pid: int, command: Command) -> int | None:
    """The inode of the disk that QEMU has open and that has no name, or None."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()).startswith(f"{command.state}/") and link.stat().st_nlink == 0:
                return link.stat().st_ino
    return None


def sizes(command: Command) -> list[int]:
    """Bytes of the guest's disks."""
    found = command("qmp", "g", "query-block").json
    disks = [one for one in found if one["qdev"].startswith("/machine/peripheral/disk")]
    return [one["inserted"]["image"]["virtual-size"] for one in disks]


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_written_is_kept_or_gone_and_the_image_stays_as_it_is(
    version: str, image: Path, sevlaunch: Command
) -> None:
    before, qemu = digest(image), with_qemu(qemu_binary_of(version))
    kept, gone = {"image": str(image), "size": "64M"}, {"image": str(image), "overlay": "ephemeral", "cache": "none"}
    profile = profile_of(sevlaunch, kept, gone, {"image": str(image), "read_only": True})
    sevlaunch("up", profile, "--paused", *qemu)
    assert sizes(sevlaunch) == [64 * MIB, 8 * MIB, 8 * MIB]
    (overlay,) = overlays(sevlaunch)
    lock = overlay.with_name("disks.lock")
    assert lock_of(lock, DISKS)
    assert [path.name for path in sevlaunch.state.iterdir()] == ["g"], "the other has no name"
    sevlaunch("down", "g", "--now")
    assert lock_of(lock, DISKS) is None
    write(overlay)
    sevlaunch("up", profile, "--paused", *qemu)
    assert overlays(sevlaunch) == [overlay]
    sevlaunch("down", "g", "--now")
    assert digest(image) == before
    nothing_left(sevlaunch)


def test_it_grows_and_never_shrinks(image: Path, sevlaunch: Command) -> None:
    for size, seen in (("16M", 16 * MIB), ("32M", 32 * MIB)):
        profile = profile_of(sevlaunch, {"image": str(image), "size": size})
        sevlaunch("up", profile, "--paused", *some_qemu())
        assert sizes(sevlaunch) == [seen]
        sevlaunch("down", "g", "--now")
    profile = profile_of(sevlaunch, {"image": str(image), "size": "16M"})
    refused = sevlaunch("up", profile, "--paused", *some_qemu(), check=4)
    assert "has 32M, and the profile says 16M" in refused.stderr
    nothing_left(sevlaunch)


def test_an_image_that_changed_under_its_overlay_is_refused(image: Path, sevlaunch: Command) -> None:
    profile = profile_of(sevlaunch, {"image": str(image)})
    sevlaunch("up", profile, "--paused", *some_qemu())
    sevlaunch("down", "g", "--now")
    old = image.rename(image.with_name("old.img"))
    image.write_bytes(old.read_bytes())
    os.utime(image, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    refused = sevlaunch("up", profile, "--paused", *some_qemu(), check=4)
    assert "was made for the image as it was before somebody changed it" in refused.stderr
    assert "--fresh" in refused.stderr and "put the old image back" in refused.stderr
    old.rename(image)
    sevlaunch("up", profile, "--paused", *some_qemu())
    sevlaunch("down", "g", "--now")
    nothing_left(sevlaunch)


def test_an_overlay_is_for_one_guest_at_a_time(image: Path, sevlaunch: Command) -> None:
    profile = profile_of(sevlaunch, {"image": str(image)}, firmware={"image": str(sevlaunch.base / "fw.fd")})
    (sevlaunch.base / "fw.fd").write_bytes(bytes(4 * MIB))
    sevlaunch("up", profile, "--paused", *some_qemu())
    usual = sevlaunch.environment
    (sevlaunch.base / "other").mkdir(mode=0o700)
    sevlaunch.environment = {**usual, "XDG_RUNTIME_DIR": str(sevlaunch.base / "other")}
    refused = sevlaunch("up", profile, "--paused", *some_qemu(), check=4)
    assert "belong to another guest that runs" in refused.stderr
    sevlaunch.environment = usual
    assert "a guest 'g' runs" in sevlaunch("rm", "g", check=1).stderr
    sevlaunch("down", "g", "--now")
    removed = sevlaunch("rm", "g", *JSON).json[0]["files"]
    assert {"disk0.qcow2", "disk0.json", "disks.lock"} <= {Path(file).name for file in removed}
    assert overlays(sevlaunch) == []


def test_many_guests_of_one_image_have_one_each(image: Path, sevlaunch: Command) -> None:
    profile = profile_of(sevlaunch, {"image": str(image)}, {"image": str(image), "overlay": "ephemeral"})
    sevlaunch("up", profile, "--count", "3", "--paused", *some_qemu())
    found = [overlays(sevlaunch, f"g-{number}") for number in (1, 2, 3)]
    assert [len(one) for one in found] == [1, 1, 1]
    sevlaunch("down", "--all", "--now")
    wait_until(lambda: sevlaunch.left_behind() == [], what="the end of all")


def test_the_image_is_booted_then_what_was_written_and_afresh_the_image_again(sevlaunch: Command) -> None:
    needs.ovmf()
    disk = {"image": str(write_bootable(sevlaunch.base / "system.raw", "the image is booted")), "size": "4M"}
    other = write_bootable(sevlaunch.base / "other.raw", "what was written is booted")
    profile = profile_of(sevlaunch, disk, memory="128M")

    def booted(*options: str) -> str:
        sevlaunch("up", profile, *some_qemu(), *options)
        seen = wait_for_console(sevlaunch, "g", " is booted", 240)
        sevlaunch("down", "g", "--now")
        return seen

    assert "the image is booted" in booted()
    (overlay,) = overlays(sevlaunch)
    write(overlay, f"write -q -s {other} 0 1M")
    assert "what was written is booted" in booted()
    note = overlay.with_name("VARS.fd").stat().st_mtime_ns
    assert "the image is booted" in booted("--fresh")
    assert overlay.with_name("VARS.fd").stat().st_mtime_ns != note
    nothing_left(sevlaunch)


def test_afresh_is_not_for_what_a_guest_that_runs_has(image: Path, sevlaunch: Command) -> None:
    profile = profile_of(sevlaunch, {"image": str(image)})
    sevlaunch("up", profile, "--paused", *some_qemu())
    (overlay,) = overlays(sevlaunch)
    before, written = overlay.stat().st_ino, overlay.stat().st_mtime_ns
    assert "a guest 'g' runs already" in sevlaunch("up", "--fresh", profile, *some_qemu(), check=1).stderr
    usual = sevlaunch.environment
    (sevlaunch.base / "other").mkdir(mode=0o700)
    sevlaunch.environment = {**usual, "XDG_RUNTIME_DIR": str(sevlaunch.base / "other")}
    refused = sevlaunch("up", "--fresh", profile, "--paused", *some_qemu(), check=1)
    assert "a guest 'g' runs, and uses what would be removed" in refused.stderr
    assert sevlaunch("ps", *JSON).json == []
    sevlaunch.environment = usual
    assert overlay.stat().st_ino == before
    sevlaunch("down", "g", "--now")
    os.utime(image)
    sevlaunch("up", "--fresh", profile, "--paused", *some_qemu())
    assert overlay.stat().st_mtime_ns != written
    sevlaunch("down", "g", "--now")


def test_a_disk_that_goes_with_the_guest_outlives_its_reboot_alone(image: Path, sevlaunch: Command) -> None:
    profile = profile_of(sevlaunch, {"image": str(image), "overlay": "ephemeral"}, on_crash="relaunch")
    launcher = sevlaunch.start("up", profile, "--foreground", "--down-timeout", "0", *some_qemu())

    def qemu(before: int = 0) -> int:
        def pids() -> list[int]:
            found = sevlaunch("ps", *JSON).json
            return [one["pid"] for one in found if one["state"] == "running" and one["pid"] != before]

        wait_until(lambda: pids() != [], what="QEMU")
        return pids()[0]

    first = qemu()
    disk = unnamed_disk(first, sevlaunch)
    assert disk is not None
    os.kill(first, signal.SIGKILL)
    second = qemu(first)
    assert unnamed_disk(second, sevlaunch) == disk
    launcher.send_signal(signal.SIGTERM)
    launcher.communicate(timeout=120)
    assert list(sevlaunch.state.glob("*.*")) == []
    nothing_left(sevlaunch)


@tries(5, 100)
def test_a_launcher_that_is_killed_while_it_makes_overlays_leaves_none_half_made(
    count: int, image: Path, sevlaunch: Command
) -> None:
    check = [needs.program("qemu-img", "qemu-utils"), "check", "-q", "-U", "-f", "qcow2"]
    gone = {"image": str(image), "overlay": "ephemeral"}
    profile = profile_of(sevlaunch, *({"image": str(image), "size": f"{size}G"} for size in (1, 2, 3)), gone)
    for _ in range(count):
        launcher = sevlaunch.start("up", profile, "--paused", *some_qemu())
        wait_until(lambda: list((sevlaunch.state / "g").glob("*/disks.lock")), 30, "its first step")
        pause_until(launcher, random.random() * 0.1)
        launcher.kill()
        launcher.communicate()
        left = overlays(sevlaunch)
        for overlay in left:
            subprocess.run([*check, overlay], check=True)
        sevlaunch("down", "g", "--now", check=None)
        sevlaunch("up", profile, "--paused", *some_qemu())
        assert sizes(sevlaunch) == [1 << 30, 2 << 30, 3 << 30, 8 * MIB]
        assert set(left) <= set(overlays(sevlaunch))
        sevlaunch("down", "g", "--now")
        assert list(sevlaunch.state.rglob(".*")) == []
        sevlaunch("rm", "g")
    nothing_left(sevlaunch)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"backing": 512}, "needs another image below it (backing file)"),
        ({"features": 4}, "needs a file that its data is in (data-file)"),
        ({"size": 1 << 62}, "for which its table has no place"),
        ({"size": 1 << 20}, "Could not"),
    ],
)
def test_a_hostile_image_is_refused_and_nothing_is_left(
    header: dict[str, int], message: str, sevlaunch: Command
) -> None:
    image = qcow2(sevlaunch.base / "theirs.img", **header)
    with image.open("r+b") as stream:
        stream.seek(512)
        stream.write(b"/etc/shadow")
    refused = sevlaunch("up", profile_of(sevlaunch, {"image": str(image)}), "--paused", *some_qemu(), check=None)
    assert refused.code in (3, 4, 5) and message in refused.stderr
    no_traceback(refused)
    nothing_left(sevlaunch)


def test_a_sparse_image_of_a_tebibyte_takes_no_room(sevlaunch: Command) -> None:
    image = sevlaunch.base / "large.raw"
    with image.open("wb") as stream:
        stream.truncate(1 << 40)
    sevlaunch("up", profile_of(sevlaunch, {"image": str(image)}), "--paused", *some_qemu())
    assert sizes(sevlaunch) == [1 << 40]
    (overlay,) = overlays(sevlaunch)
    assert overlay.stat().st_blocks * 512 < 2 * MIB
    sevlaunch("down", "g", "--now")


def test_without_qemu_img_the_package_is_named(image: Path, sevlaunch: Command) -> None:
    (sevlaunch.base / "bin").mkdir()
    (sevlaunch.base / "bin/sh").symlink_to("/bin/sh")
    sevlaunch.environment["PATH"] = str(sevlaunch.base / "bin")
    profile = profile_of(sevlaunch, {"image": str(image)})
    refused = sevlaunch("up", profile, "--paused", *some_qemu(), check=4)
    assert "program qemu-img: missing" in refused.stderr and "apt install qemu-utils" in refused.stderr
    found = sevlaunch("doctor", "--for", profile, *some_qemu(), check=None)
    assert "program qemu-img: missing" in found.stdout


def test_an_overlay_is_qemus_accounts_to_write_and_an_image_to_read(image: Path, reachable: Command, user: str) -> None:
    needs.root("starting QEMU as another user")
    image.chmod(0o644)
    gone = {"image": str(image), "overlay": "ephemeral"}
    profile = profile_of(reachable, {"image": str(image)}, gone, run_as=user)
    reachable("up", profile, "--paused")
    assert sizes(reachable) == [8 * MIB, 8 * MIB]
    (overlay,) = overlays(reachable)
    assert overlay.stat().st_uid == 0
    account = find_account(user)
    assert may(str(overlay), os.R_OK | os.W_OK, account) and not may(str(image), os.W_OK, account)
    reachable("down", "g", "--now")
    image.chmod(0o600)
    assert "can't be read by this user" in reachable("up", profile, "--paused", check=4).stderr
    nothing_left(reachable)


def test_an_ordinary_user_has_overlays(image: Path, base: Path) -> None:
    command = ordinary_user(base)
    base.chmod(0o755)
    image.chmod(0o644)
    command("up", profile_of(command, {"image": str(image)}, {"image": str(image), "overlay": "ephemeral"}), "--paused")
    assert sizes(command) == [8 * MIB, 8 * MIB]
    command("down", "g", "--now")
    nothing_left(command)


def test_the_unit_lets_it_read_the_image_and_write_nothing_beside_its_state(image: Path, sevlaunch: Command) -> None:
    profile = profile_of(sevlaunch, {"image": str(image)}, {"image": str(image), "overlay": "ephemeral"})
    unit = sevlaunch("unit", profile).stdout
    assert "StateDirectory=sevlaunch" in unit
    assert str(image) not in unit
