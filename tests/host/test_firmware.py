"""Firmware descriptors: the folders' precedence, masking, what is read from each."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.host.firmware import parse_descriptor, read_descriptors
from sevlaunch.host.firmware_facts import FirmwareDescriptor
from tests.published import libvirts_descriptors


def described(**changes: Any) -> dict[str, Any]:
    """A descriptor as QEMU's firmware.json has it."""
    content: dict[str, Any] = {
        "description": "test",
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": "/code.fd", "format": "raw"},
            "nvram-template": {"filename": "/vars.fd", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
        "features": ["amd-sev"],
        "tags": [],
    }
    return content | changes


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders, lowest precedence first."""
    found = [tmp_path / "usr", tmp_path / "etc"]
    for folder in found:
        folder.mkdir()
    return found


def write(folder: Path, name: str, content: dict[str, Any] | str) -> Path:
    """A file in a folder of descriptors."""
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def files(found: list[FirmwareDescriptor]) -> list[str]:
    """The files' names in order."""
    return [Path(one.file).name for one in found]


def test_names_sort_over_all_folders(folders: list[Path]) -> None:
    write(folders[0], "60-b.json", described())
    write(folders[1], "50-a.json", described())
    write(folders[0], "40-c.json", described())
    assert files(read_descriptors(folders)[0]) == ["40-c.json", "50-a.json", "60-b.json"]


def test_a_later_folder_replaces_and_an_empty_file_hides(folders: list[Path]) -> None:
    write(folders[0], "50-a.json", described(description="lower"))
    write(folders[0], "60-b.json", described())
    write(folders[1], "50-a.json", described(description="upper"))
    write(folders[1], "60-b.json", "")
    found, problems = read_descriptors(folders)
    assert [(Path(one.file).name, one.description) for one in found] == [("50-a.json", "upper")]
    assert problems == []


def test_dot_files_other_endings_and_missing_folders_are_passed_over(folders: list[Path]) -> None:
    write(folders[0], ".50-a.json", described())
    write(folders[0], "50-a.json.bak", described())
    assert read_descriptors([*folders, Path("/no/such/folder")]) == ([], [])


@pytest.mark.parametrize(
    "content", ["{", "[]", "3", "{}", json.dumps(described(mapping=1)), json.dumps(described(targets=[{}]))]
)
def test_what_is_no_descriptor_is_named_and_the_rest_is_read(folders: list[Path], content: str) -> None:
    write(folders[0], "50-bad.json", content)
    write(folders[0], "60-good.json", described())
    found, problems = read_descriptors(folders)
    assert files(found) == ["60-good.json"]
    assert len(problems) == 1
    assert "50-bad.json" in problems[0]


def test_a_descriptor_that_is_a_fifo_is_named_and_not_waited_for(folders: list[Path]) -> None:
    os.mkfifo(folders[0] / "50-fifo.json")
    write(folders[0], "60-good.json", described())
    found, problems = read_descriptors(folders)
    assert files(found) == ["60-good.json"]
    assert problems == [f"{folders[0]}/50-fifo.json: it is a FIFO, and no regular file"]


def test_an_igvm_file_is_described_and_the_formats_of_a_pair(folders: list[Path]) -> None:
    igvm = parse_descriptor(described(mapping={"device": "igvm", "filename": "/x.igvm"}), "f")
    assert igvm
    assert (igvm.device, igvm.mode, igvm.executable) == ("igvm", "stateless", "/x.igvm")
    mapping = {
        "device": "flash",
        "executable": {"filename": "/c.qcow2", "format": "qcow2"},
        "nvram-template": {"filename": "/v.qcow2", "format": "qcow2"},
    }
    pair = parse_descriptor(described(mapping=mapping), "f")
    assert pair
    assert (pair.executable_format, pair.nvram_template_format) == ("qcow2", "qcow2")


def test_other_architectures_and_kernels_are_no_firmware_for_us() -> None:
    assert parse_descriptor(described(targets=[{"architecture": "aarch64", "machines": ["virt"]}]), "f") is None
    kernel = described(mapping={"device": "kernel", "filename": "/k"})
    assert parse_descriptor(kernel, "f") is None


def test_memory_and_flash_are_told_apart() -> None:
    memory = parse_descriptor(described(mapping={"device": "memory", "filename": "/image.fd"}), "f")
    assert memory
    assert (memory.device, memory.mode, memory.executable, memory.nvram_template) == (
        "memory",
        "stateless",
        "/image.fd",
        None,
    )
    flash = parse_descriptor(described(), "f")
    assert flash
    assert (flash.device, flash.mode, flash.executable, flash.nvram_template) == (
        "flash",
        "split",
        "/code.fd",
        "/vars.fd",
    )


def test_libvirts_own_tree_of_descriptors_gives_the_order_libvirt_expects() -> None:
    libvirt = libvirts_descriptors()
    found, problems = read_descriptors([libvirt / "usr/share/qemu/firmware", libvirt / "etc/qemu/firmware"])
    names = files(found)
    assert names == sorted(names)
    # 92-masked is hidden by an empty file.
    assert "92-masked.json" not in names
    assert any("93-invalid.json" in problem for problem in problems)
    amdsev = next(one for one in found if one.file.endswith("60-edk2-ovmf-x64-amdsev.json"))
    assert amdsev.mode == "stateless"
    assert {"amd-sev", "amd-sev-es", "amd-sev-snp"} <= set(amdsev.features)
