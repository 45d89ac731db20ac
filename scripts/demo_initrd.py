#!/usr/bin/env python3
"""Write the demo guest's initrd: a newc cpio archive of busybox, the init script and a few kernel modules.

Needs neither root nor cpio; the same input gives the same bytes.
"""

from __future__ import annotations

import argparse
import lzma
import re
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

REQUIRED = ["virtio_pci", "virtio_blk", "virtio_net"]
# Drivers go after virtio_pci, and virtio_scsi after sd_mod, so that loading a module also waits for its devices.
MODULES = [
    "virtio_pci", "virtio_rng", "virtio_blk", "af_packet", "virtio_net", "evdev", "button", "sd_mod", "isofs", "sr_mod",
    "virtio_scsi", "virtio_balloon", "virtio_console", "vmw_vsock_virtio_transport", "vsock_loopback", "virtiofs",
    "ccp", "sev_guest", "efivarfs", "dm_mod", "dm_verity",
]  # fmt: skip
FOLDERS = [
    "bin", "dev", "etc", "etc/acpi", "etc/acpi/PWRF", "etc/dropbear", "lib", "lib/modules", "lib64", "proc", "root",
    "run", "seed", "sys", "tmp", "usr", "usr/lib",
]  # fmt: skip
SUFFIX = re.compile(r"\.ko(\.xz|\.zst)?$")


@dataclass(frozen=True)
class Entry:
    """One member of the archive."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    modified: int = 0  # seconds since 1970


def unzstd(data: bytes) -> bytes:
    """Decompress zstd, which Python's standard library lacks before 3.14."""
    return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout


UNPACK: dict[str, Callable[[bytes], bytes]] = {".ko": bytes, ".xz": lzma.decompress, ".zst": unzstd}


def module_name(path: str) -> str:
    """Return the kernel's name of a module file."""
    return SUFFIX.sub("", path.rsplit("/", 1)[-1]).replace("-", "_")


def dependencies(module: bytes) -> list[str]:
    """Return the names in a module's own list, as modules.dep exists only where depmod has run."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def load_modules(tree: Path) -> dict[str, bytes]:
    """Return the wanted modules and what they need, in loading order."""
    paths = sorted((tree / "kernel").rglob("*.ko*"))
    files = {module_name(path.name): path for path in paths if SUFFIX.search(path.name)}
    builtin = {module_name(line) for line in (tree / "modules.builtin").read_text().split()}
    if missing := [name for name in REQUIRED if name not in files and name not in builtin]:
        raise SystemExit(f"demo_initrd: not in {tree}: {', '.join(missing)}")
    loaded: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in loaded or name not in files:
            return
        data = UNPACK[files[name].suffix](files[name].read_bytes())
        for needed in dependencies(data):
            add(needed)
        loaded[name] = data

    for name in MODULES:
        add(name)
    return loaded


def entries(busybox: Path, tree: Path, init: Path, ssh: Path) -> Iterator[Entry]:
    """Yield everything that goes into the archive; ``ssh`` lists what the SSH server is made of, FILE NAME a line."""
    applets = subprocess.check_output([busybox, "--list"], text=True).split()
    modules = load_modules(tree)
    yield from (Entry(name, stat.S_IFDIR | 0o755) for name in FOLDERS)
    yield Entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    yield Entry("init", stat.S_IFREG | 0o755, init.read_bytes())
    yield Entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes())
    yield from (Entry(f"bin/{name}", stat.S_IFLNK | 0o777, b"busybox") for name in set(applets) - {"busybox"})
    yield Entry("etc/udhcpc.script", stat.S_IFLNK | 0o777, b"/init")
    yield Entry("etc/acpi/PWRF/00000080", stat.S_IFLNK | 0o777, b"/init")  # where busybox acpid looks
    yield from (Entry(f"lib/modules/{name}.ko", stat.S_IFREG | 0o644, data) for name, data in modules.items())
    for line in ssh.read_text().splitlines():
        file, name = line.split(" ")
        yield Entry(name, stat.S_IFREG | 0o755, Path(file).read_bytes())
    # Where dropbear looks for it.
    yield Entry("usr/lib/sftp-server", stat.S_IFLNK | 0o777, b"/bin/sftp-server")
    yield Entry("lib/modules/order", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in modules).encode())


def newc(entry: Entry, inode: int) -> bytes:
    """Return one member in the format the kernel reads (its early-userspace/buffer-format document)."""
    name = entry.name.encode() + b"\0"
    fields = (inode, entry.mode, 0, 0, 1, entry.modified, len(entry.data), 0, 0, *entry.device, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return header + bytes(-len(header) % 4) + entry.data + bytes(-len(entry.data) % 4)


def archive(members: Iterable[Entry]) -> Iterator[bytes]:
    """Yield a whole archive, piece by piece."""
    for inode, entry in enumerate([*members, Entry("TRAILER!!!", 0)], start=1):
        yield newc(entry, inode)


def main() -> None:
    """Write the archive named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("busybox", "modules", "init", "ssh", "output"):
        parser.add_argument(name, type=Path)
    args = parser.parse_args()
    members = sorted(entries(args.busybox, args.modules, args.init, args.ssh), key=lambda entry: entry.name)
    args.output.write_bytes(b"".join(archive(members)))


if __name__ == "__main__":
    main()
