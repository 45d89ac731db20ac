"""Folders of the host, shared through virtiofsd, a helper program for each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sevlaunch.host.helpers import PLACES
from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Companion, NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, fact, flag, rule, verbatim
from sevlaunch.plan.part import Part

_INSTALL = "Debian 12: qemu-system-common; newer Debian, Ubuntu, Fedora, openSUSE: the package virtiofsd"
_SHARED_DIR = "--shared-dir"
# What -o splits its options at, and what takes that away.
_SPECIAL, _ESCAPED = r"[,\\]", r"\\\g<0>"

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
    """A folder, the ``index``-th of the guest, which mounts it by its ``tag``. virtiofsd listens on ``socket``.

    ``shared_dir``: this virtiofsd takes the path as an option of its own.
    """

    index: int
    path: Choice[str]
    shared_dir: Choice[bool]
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
            self._source(),
        )
        return Needs(
            files=(NeededFile(self.path.value, "shared folder", self.remedy, write=True, folder=True),),
            companions=(Companion(self.name, "virtiofsd", command, self.socket, _INSTALL, PLACES["virtiofsd"]),),
            capabilities=_CAPABILITIES,
            namespaces=("mnt", "net", "pid", "user"),
            system_calls=("@mount",),
            # Where the virtiofsd of QEMU keeps its locks.
            runtime_folders=("virtiofsd",),
        )

    def _source(self) -> Option:
        """The path. The virtiofsd of QEMU before 8.0 takes it among other -o options: its fuse_opt.c."""
        if self.shared_dir.value:
            return verbatim(_SHARED_DIR, self.path.value, self.path.reason)
        return verbatim("-o", f"source={re.sub(_SPECIAL, _ESCAPED, self.path.value)}", self.path.reason)

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
    virtiofsd = context.host.helpers.get("virtiofsd")
    shared_dir = Choice(False, rule("every virtiofsd takes a plain path so"))
    if virtiofsd is not None:
        there = _SHARED_DIR in virtiofsd.options
        shared_dir = Choice(there, fact(f"{virtiofsd.path} has {'' if there else 'no '}{_SHARED_DIR}"))
    for index, share in enumerate(context.profile.shares):
        context.need_device("vhost-user-fs-pci", f"shares.{index}")
        if virtiofsd is None and re.search(_SPECIAL, share.path):
            context.refuse(
                f"how virtiofsd takes a comma or backslash, as in {share.path!r}, depends on its version, which is not "
                "known of this host",
                "shares",
                index,
                "path",
                hint="from a program: Host.probe(helpers=profile.helpers); or share it by the name of a bind mount",
            )
        yield SharePlan(
            index=index,
            path=context.choice(share.path, "shares", index, "path"),
            shared_dir=shared_dir,
            tag=context.choice(share.tag, "shares", index, "tag"),
            socket=str(context.qemu_folder / f"share{index}.sock"),
            address=context.address("share", index),
            remedy=f"mkdir {share.path}, or correct shares",
        )
