"""profiles/measured.yaml on another image than the one that it names."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import PROFILES
from tests.contents.disks import ext, kernel
from tests.hash_trees import make_tree

PROFILE = PROFILES / "measured.yaml"
CMDLINE = "console=ttyS0 systemd.volatile=state"
KERNEL, INITRD = kernel("one"), b"initrd" * 1000


def small_image(base: Path, *, linux: bytes = KERNEL) -> tuple[Path, Path]:
    """An image with kernel, initrd and command line in it, and something else, and its hash tree."""
    files = {"vmlinuz": linux, "initrd.img": INITRD, "etc/kernel/cmdline": CMDLINE.encode(), "etc/motd": b"a motd\n"}
    image = ext(base / "root.raw", files)
    make_tree(image, base / "root.raw.verity")
    return image, base / "root.raw.verity"


def on(image: Path, tree: Path) -> tuple[str, str]:
    """The option that has the profile boot it."""
    return "--set", f"disks=[{{path: {image}, read_only: true}}, {{path: {tree}, read_only: true}}]"
