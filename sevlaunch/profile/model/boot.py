"""What the firmware boots."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from sevlaunch.profile.boot_values import read_initrd_credential
from sevlaunch.profile.fields import AbsolutePath, Parser, Placeholder, matching
from sevlaunch.profile.model.base import FILE_OR_TEXT, Model

# systemd's PID 1 takes NAME.cred, which has to be a file's name of 255 bytes, and passes over hidden ones.
InitrdCredentialName = Annotated[
    str,
    matching(
        r"[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,249}",
        wanted="a name of up to 250 letters, digits, and the signs _ . @ -, which does not begin with a dot",
    ),
]
InitrdCredential = Annotated[
    bytes,
    Parser(read_initrd_credential),
    FILE_OR_TEXT,
]

_DISK, _A_DISK = r"disk[0-9]{1,3}", "a disk of the profile such as disk0"
_ROOT_HASH = r"auto|[0-9a-f]{64}|[0-9a-f]{128}"


class Verity(Model, frozen=True, kw_only=True):
    """A root file system under dm-verity, whose root hash is put on the command line."""

    data: Annotated[str, matching(_DISK, "disk with the file system", wanted=_A_DISK), Placeholder("disk0")]
    hash: Annotated[
        str,
        matching(
            rf"appended|{_DISK}",
            "disk with the hash tree; appended (default): behind the data",
            wanted=f"appended, or {_A_DISK}",
        ),
        Placeholder("appended"),
    ] = "appended"
    root_hash: Annotated[
        str,
        matching(
            _ROOT_HASH,
            "what the tree's root has to be; auto (default): what it is",
            wanted="auto, or the 64 hexadecimal digits that `sevlaunch image verity` prints",
        ),
        Placeholder("auto"),
    ] = "auto"
    format: Annotated[
        Literal["systemd", "kernel"],
        Meta(
            description="words on the command line; systemd: roothash= and systemd.verity_root_*, for an initrd; "
            "kernel: dm-mod.create=, for a kernel with CONFIG_DM_INIT, as kata's has"
        ),
    ] = "systemd"

    @property
    def data_disk(self) -> int:
        """The number of the disk with the file system."""
        return int(self.data.removeprefix("disk"))

    @property
    def hash_disk(self) -> int:
        """The number of the disk with the tree."""
        return self.data_disk if self.hash == "appended" else int(self.hash.removeprefix("disk"))


class Boot(Model, frozen=True, kw_only=True):
    """What the firmware boots."""

    @property
    def is_direct(self) -> bool:
        """Whether QEMU hands the kernel over."""
        return bool(self.kernel or self.from_)

    @property
    def from_index(self) -> int | None:
        """The position in disks of the one that all is taken from."""
        return int(self.from_.removeprefix("disk")) if self.from_ else None

    kernel: Annotated[AbsolutePath | None, Meta(description="Linux kernel for a direct boot")] = None
    initrd: AbsolutePath | None = None
    from_: Annotated[
        Annotated[str, matching(r"disk[0-9]+", wanted="a disk such as disk0"), Placeholder("disk999")] | None,
        Meta(description="disk whose image kernel, initrd and command line are taken from, such as disk0"),
    ] = field(name="from", default=None)
    cmdline: Annotated[
        str | None, Meta(description="kernel command line; in place of the one in the image, or in the kernel")
    ] = None
    cmdline_extra: Annotated[
        str | None, Meta(description="what is added to the command line, or to the one in the image, or in the kernel")
    ] = None
    credentials: Annotated[
        dict[InitrdCredentialName, InitrdCredential],
        Meta(description="credentials for systemd in the initrd, by their names: measured with it, and not secret"),
    ] = {}
    verity: Annotated[
        Verity | None, Meta(description="dm-verity for the root: its root hash is measured with the command line")
    ] = None
    order: Annotated[
        list[
            Annotated[
                str, matching(r"(disk|net)[0-9]+", wanted="a device such as disk0 or net0"), Placeholder("disk999")
            ]
        ],
        Meta(description="devices to boot from, such as disk0, net0; default: disks, then CD-ROMs, then networks"),
    ] = []
