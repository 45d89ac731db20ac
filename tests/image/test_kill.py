"""A fetch that is killed at any moment: nothing half-made is used, and the next one works."""

from __future__ import annotations

import hashlib
import random
import signal
import time
from pathlib import Path

from sevlaunch.image_reference import entry_of
from tests.conftest import Command
from tests.guest.support import tries
from tests.image.server import Server

CONTENT = random.Random(3).randbytes(16 << 20)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@tries(5, 100)
def test_sigkill_at_any_moment(sevlaunch: Command, base: Path, server: Server, count: int) -> None:
    url = server.put("disk.raw", CONTENT)
    command = ("image", "fetch", url, "--sha256", SHA256, "--format", "json")
    began = time.monotonic()
    path = Path(sevlaunch(*command).json["path"])
    whole = time.monotonic() - began
    dice = random.Random(count)
    cut = 0
    for _ in range(count):
        sevlaunch("image", "rm", entry_of("", SHA256))
        # Several times, so that what one of them leaves is in the way of the next.
        for _ in range(dice.randint(1, 3)):
            process = sevlaunch.start(*command)
            time.sleep(dice.uniform(0, whole))
            process.send_signal(signal.SIGKILL)
            cut += process.wait(30) == -signal.SIGKILL
            process.communicate()
            if path.exists():
                assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
        listed = sevlaunch("image", "ls", "--format", "json").json
        assert all(one["state"] in ("whole", "partial") for one in listed)
        done = sevlaunch(*command).json
        assert done["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
        assert {file.name for file in path.parent.iterdir()} == {"image", "image.json", "lock"}
    assert cut
