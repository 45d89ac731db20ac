"""What a kernel of its own gets of this machine, and what is said where there can be none."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.guest.machine_files import MachineFiles
from tests.guest.own_kernel import INSIDE, passes_in_own_kernel

pytestmark = pytest.mark.long


def test_a_link_brings_what_it_leads_to_and_everyone_may_read_it(base: Path) -> None:
    real = base / "real"
    (real / "inner").mkdir(parents=True)
    (real / "inner/program").write_bytes(b"#!")
    (real / "inner/program").chmod(0o700)
    (real / "inner").chmod(0o700)
    (base / "folder").symlink_to("real/inner")
    (base / "program").symlink_to(base / "folder/program")
    (base / "lost").symlink_to("nowhere")
    files = MachineFiles()
    files.add(base / "program")
    files.add(base / "lost")
    files.add(base / "missing/file")
    names = [path for path in files.entries if path.is_relative_to(base)]
    assert [str(path.relative_to(base)) for path in names] == [
        ".", "program", "folder", "real", "real/inner", "real/inner/program", "lost"
    ]  # fmt: skip
    assert files.entries[base / "folder"].data == b"real/inner"
    assert stat.S_IMODE(files.entries[real / "inner"].mode) == 0o755
    program = files.entries[real / "inner/program"]
    assert (program.data, stat.S_IMODE(program.mode)) == (b"#!", 0o755)
    assert program.modified == int((real / "inner/program").stat().st_mtime)


def test_a_program_brings_its_libraries() -> None:
    files = MachineFiles()
    files.add(Path("/bin/sh"))
    assert not any(path.name == "libc.so.6" for path in files.entries)
    files.add_libraries()
    assert any(path.name == "libc.so.6" for path in files.entries)


def test_where_there_is_no_such_kernel_the_test_skips_by_name(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(base))
    with pytest.raises(
        pytest.skip.Exception, match="qemu-system-x86_64 is not installed: the package qemu-system-x86 has it"
    ):
        passes_in_own_kernel("tests/test.py::test", "this kernel can't", base, memory=1 << 30)


def test_a_kernel_of_its_own_starts_no_other(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INSIDE, "1")
    with pytest.raises(pytest.fail.Exception, match="nor can a kernel of its own: no vsock"):
        passes_in_own_kernel("tests/test.py::test", "no vsock", base, memory=1 << 30)
