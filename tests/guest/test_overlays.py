"""What is written to a disk of an image that is never written: kept for the next start, or gone with the guest."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.guest.locks import DISKS
from tests import needs
from tests.conftest import VERSIONS, Command, qemu_binary_of, wait_until
from tests.guest.support import JSON, lock_of, nothing_left, some_qemu, with_qemu

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


def write(overlay: Path) -> None:
    """Write nines where the image has sevens, as a guest would."""
    subprocess.run(
        [needs.program(QEMU_IO, "qemu-utils"), "-f", "qcow2", "-c", "write -q -P 9 0 1M", overlay], check=True
    )


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
