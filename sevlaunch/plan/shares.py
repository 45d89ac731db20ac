"""Folders of the host, shared through virtiofsd, a helper program for each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Companion, NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, flag, rule, verbatim
from sevlaunch.plan.part import Part

_INSTALL = "Debian 12: qemu-system-common; newer Debian, Ubuntu, Fedora, openSUSE: the package virtiofsd"
# Debian 12's qemu-system-common, and the Rust virtiofsd of others: outside PATH.
_PLACES = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd")

# What virtiofsd keeps to act as the guest's users do, what its sandbox takes, and what giving up the rest takes: QEMU
# 7.2's tools/virtiofsd/passthrough_ll.c, setup_capabilities() and setup_namespaces(); the Rust one's sandbox.rs.
_CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_MKNOD",
    "CAP_SETFCAP",
    "CAP_SYS_ADMIN",
    "CAP_SETPCAP",
)


class SharePlan(Part, frozen=True, kw_only=True):
    """A folder, the ``index``-th of the guest, which mounts it by its ``tag``. virtiofsd listens on ``socket``."""

    index: int
    path: Choice[str]
    tag: Choice[str]
    socket: str
    address: Address
    remedy: str

    @property
    def name(self) -> str:
        """The name of the helper and of QEMU's connection to it."""
        return f"share{self.index}"

    @property
    def needs(self) -> Needs:
        """The folder, and the program with its sandbox."""
        command = (
            flag(f"--socket-path={self.socket}", rule("QEMU connects to it")),
            verbatim("-o", f"source={self.path.value}", self.path.reason),
        )
        return Needs(
            files=(NeededFile(self.path.value, "shared folder", self.remedy, write=True, folder=True),),
            companions=(Companion(self.name, "virtiofsd", command, self.socket, _INSTALL, _PLACES),),
            capabilities=_CAPABILITIES,
            namespaces=("mnt", "net", "pid", "user"),
            system_calls=("@mount",),
            # Where the virtiofsd of QEMU keeps its locks.
            runtime_folders=("virtiofsd",),
        )

    def options(self) -> Iterator[Option]:
        """The connection to virtiofsd, and the device."""
        connection = Parameter("id", self.name, self.path.reason)
        path = Parameter("path", self.socket, self.path.reason)
        yield Option("-chardev", (Parameter("", "socket", self.path.reason), connection, path))
        yield Option(
            "-device",
            (
                Parameter("", "vhost-user-fs-pci", self.path.reason),
                Parameter("chardev", self.name, self.path.reason),
                self.tag.parameter("tag"),
                *self.address.parameters(),
            ),
        )


def resolve_shares(context: Context) -> Iterator[SharePlan]:
    """The shared folders."""
    for index, share in enumerate(context.profile.shares):
        context.need_device("vhost-user-fs-pci", f"shares.{index}")
        if re.search(r"[,\\]", share.path):
            context.refuse(
                f"virtiofsd would take what stands behind a comma or backslash of {share.path!r} for an option",
                "shares",
                index,
                "path",
                hint="share it by another name, such as that of a bind mount",
            )
        yield SharePlan(
            index=index,
            path=context.choice(share.path, "shares", index, "path"),
            tag=context.choice(share.tag, "shares", index, "tag"),
            socket=str(context.qemu_folder / f"share{index}.sock"),
            address=context.address("share", index, "shares", index, instead="share one folder that has others in it"),
            remedy=f"mkdir {share.path}, or correct shares",
        )
