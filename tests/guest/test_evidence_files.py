"""The hash of a file in the evidence is that of its content at that moment."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sevlaunch.guest.evidence import sha256_of


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "ovmf.fd"
    changed = 0
    for content in (b"one", b"two", b"one"):
        # Neither its size nor the time that anyone can set tells the change; the kernel's own clock goes in steps.
        while not file.exists() or file.stat().st_ctime_ns == changed:
            file.write_bytes(content)
            os.utime(file, (1, 1))
        changed = file.stat().st_ctime_ns
        for _ in range(2):
            assert sha256_of(str(file)) == hashlib.sha256(content).hexdigest()
    file.unlink()
    assert sha256_of(str(file)) is None


def test_one_of_two_files_at_the_same_path_is_told_from_the_other(tmp_path: Path) -> None:
    file = tmp_path / "ovmf.fd"
    file.write_bytes(b"one")
    assert sha256_of(str(file)) == hashlib.sha256(b"one").hexdigest()
    (tmp_path / "new").write_bytes(b"two")
    (tmp_path / "new").replace(file)
    assert sha256_of(str(file)) == hashlib.sha256(b"two").hexdigest()
