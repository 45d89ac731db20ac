"""What a QEMU knows is asked from it once, and again when the binary changes."""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from sevlaunch.errors import HostError
from sevlaunch.host.qemu import find_binary, qemu_facts


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def counting_wrapper(binary: str, folder: Path) -> Path:
    """A QEMU that notes each of its starts."""
    wrapper = folder / "qemu"
    wrapper.write_text(f'#!/bin/sh\necho x >> {folder}/starts\nexec {binary} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def starts(folder: Path) -> int:
    """How often the wrapper was started."""
    file = folder / "starts"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_every_qemu_tells_what_sevlaunch_needs(qemu_binary: str) -> None:
    facts = qemu_facts(qemu_binary)
    assert {"cbitpos", "reduced-phys-bits", "policy", "kernel-hashes"} <= set(facts.objects["sev-guest"])
    assert ("sev-snp-guest" in facts.objects) == (facts.release >= (9, 1))
    assert ("legacy-vm-type" in facts.objects["sev-guest"]) == (facts.release >= (9, 1))
    assert facts.machines["q35"].startswith("pc-q35-")
    assert {"user", "tap", "bridge", "stream"} <= set(facts.netdevs)
    assert {"virtio-blk-pci", "virtio-net-pci", "qxl-vga", "vhost-vsock-pci"} <= set(facts.devices)
    assert "max" in facts.cpu_models


def test_the_answer_is_kept_until_the_binary_changes(system_qemu: str, tmp_path: Path) -> None:
    wrapper = counting_wrapper(system_qemu, tmp_path)
    first = qemu_facts(str(wrapper))
    assert (qemu_facts(str(wrapper)), starts(tmp_path)) == (first, 1)
    os.utime(wrapper, ns=(time.time_ns(), time.time_ns() + 10**9))
    assert (qemu_facts(str(wrapper)), starts(tmp_path)) == (first, 2)


def test_a_broken_cache_is_as_good_as_none(system_qemu: str, tmp_path: Path) -> None:
    wrapper = counting_wrapper(system_qemu, tmp_path)
    first = qemu_facts(str(wrapper))
    for content in ("", "{}", "\0"):
        for file in (tmp_path / "cache/sevlaunch").iterdir():
            file.write_text(content)
        assert qemu_facts(str(wrapper)) == first
    assert starts(tmp_path) == 4


@pytest.mark.parametrize("spoil", ["others may write it", "a link", "of another binary", "a folder others may write"])
def test_a_cache_that_another_could_have_written_is_not_believed(spoil: str, system_qemu: str, tmp_path: Path) -> None:
    wrapper = counting_wrapper(system_qemu, tmp_path)
    first = qemu_facts(str(wrapper))
    [file] = (tmp_path / "cache/sevlaunch").iterdir()
    forged = file.read_text().replace(first.version, "9.9.9")
    if spoil == "a link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    file.write_text(forged.replace(str(wrapper), "/bin/false") if spoil == "of another binary" else forged)
    if spoil == "others may write it":
        file.chmod(0o602)
    elif spoil.startswith("a folder"):
        file.parent.chmod(0o777)
    assert qemu_facts(str(wrapper)) == first
    # Asked anew, it is written anew, and believed again.
    count = starts(tmp_path)
    assert (qemu_facts(str(wrapper)), starts(tmp_path)) == (first, count)


def test_with_any_umask_the_cache_is_this_users_alone(system_qemu: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        qemu_facts(system_qemu)
    finally:
        os.umask(before)
    folders = [tmp_path / "cache", tmp_path / "cache/sevlaunch"]
    assert [stat.S_IMODE(path.stat().st_mode) for path in folders] == [0o700, 0o700]


def test_a_cache_that_can_not_be_written_is_no_error(system_qemu: str, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert qemu_facts(system_qemu).version


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("exit 1", "exit code 1"),
        ("echo rubbish; echo why >&2", "why"),
        ("echo '{\"QMP\": {}}'; echo '{\"return\": {}}'", "exit code 0"),
    ],
)
def test_what_is_no_qemu_is_refused_with_what_it_said(script: str, said: str, tmp_path: Path) -> None:
    fake = tmp_path / "qemu"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    with pytest.raises(HostError, match=said):
        qemu_facts(str(fake))


def test_a_binary_named_wrongly_is_said(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="does not exist"):
        find_binary(str(tmp_path / "nothing"))
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="not an executable file"):
        find_binary(str(tmp_path / "file"))


def test_auto_is_the_first_qemu_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("/bin/true", tmp_path / "qemu-system-x86_64")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == str(tmp_path / "qemu-system-x86_64")
