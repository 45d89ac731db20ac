"""Files in a folder that others may write, too: opened relative to the folder's descriptor, and looked at before use.

No link is followed, nothing is waited for (a FIFO would keep the reader for ever), and what is there has to be of the
kind that is wanted, belong to the folder's user, and have no more than a limit.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

from sevlaunch.atomic import space_hint
from sevlaunch.errors import HostError, UnsafeFile
from sevlaunch.guest.record import FileIdentity
from sevlaunch.opening import other_kind

# A record, a plan, evidence with certificates: some 100 KiB at most.
READ_LIMIT = 4 << 20
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
# What open(2) says of a link, of something that is no folder, and of a socket.
_ANOTHER_KIND = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO)


class OpenFolder:
    """An open folder; its files belong to ``owner``.

    A file that is not there raises FileNotFoundError, one that is not as it should be
    :class:`~sevlaunch.errors.UnsafeFile`.

    :param path: for messages.
    """

    def __init__(self, fd: int, path: Path, owner: int) -> None:
        self.fd = fd
        self.path = path
        self.owner = owner

    @classmethod
    def open(cls, path: Path, *, owner: int) -> OpenFolder:
        """The folder ``path``, which has to belong to ``owner``."""
        return cls._checked(path, None, path, owner)

    @classmethod
    def _checked(cls, name: str | Path, parent: int | None, path: Path, owner: int | None) -> OpenFolder:
        try:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | _OPEN, dir_fd=parent)
        except OSError as error:
            if error.errno in _ANOTHER_KIND:
                raise _unsafe(path, "is no folder") from error
            raise
        found = os.fstat(fd).st_uid
        if owner is not None and found != owner:
            os.close(fd)
            raise _unsafe(path, f"belongs to another user (uid {found})")
        return cls(fd, path, found)

    def folder(self, name: str, *, owner: int | None = None) -> OpenFolder:
        """A folder in it; its files are taken for those of whoever it belongs to.

        :param owner: whom it has to belong to; default: whoever it does, which the owner of this one decided.
        """
        return self._checked(name, self.fd, self.path / name, owner)

    def __enter__(self) -> OpenFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)

    def open_file(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A file descriptor of a regular file; one that is made (``os.O_CREAT``) has mode 0600."""
        # To open some devices changes them.
        with contextlib.suppress(FileNotFoundError):
            self._check_file(name, self.status(name))
        try:
            fd = os.open(name, flags | _OPEN, 0o600, dir_fd=self.fd)
        except OSError as error:
            if error.errno in _ANOTHER_KIND:
                raise _unsafe(self.path / name, "is no regular file") from error
            raise
        try:
            # It may be another one by now.
            self._check_file(name, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def make_log(self, name: str) -> int:
        """A file descriptor that takes a program's output.

        :raise HostError: also when there is no space.
        """
        try:
            return self.open_file(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        except OSError as error:
            raise HostError(f"can't create {self.path / name}: {error.strerror}", hint=space_hint(error)) from error

    def read(self, name: str, *, limit: int = READ_LIMIT) -> bytes:
        """The content of a file of at most ``limit`` bytes."""
        with os.fdopen(self.open_file(name), "rb") as stream:
            content = stream.read(limit + 1)
        if len(content) > limit:
            raise _unsafe(self.path / name, f"has more than {limit} bytes")
        return content

    def read_end(self, name: str, size: int) -> bytes:
        """The last ``size`` bytes of a file, or all of them."""
        with os.fdopen(self.open_file(name), "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - size))
            return stream.read(size)

    def write(self, name: str, content: bytes) -> None:
        """Write a file with mode 0600, whole or not at all.

        :raise HostError: when the folder takes no more data.
        """
        temporary = f".new-{os.urandom(8).hex()}"
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN, 0o600, dir_fd=self.fd)
            try:
                with os.fdopen(fd, "wb") as stream:
                    stream.write(content)
                os.rename(temporary, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            except OSError:
                os.unlink(temporary, dir_fd=self.fd)
                raise
        except OSError as error:
            raise HostError(f"can't write {self.path / name}: {error.strerror}", hint=space_hint(error)) from error

    def connect(self, connection: socket.socket, name: str) -> None:
        """Connect to a socket.

        :raise OSError: when nobody listens there.
        """
        # connect(2) would follow a link; a descriptor of the socket's own is what was looked at.
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            found = os.fstat(fd)
            if not stat.S_ISSOCK(found.st_mode):
                raise _unsafe(self.path / name, "is no socket")
            self._check_owner(name, found)
            connection.connect(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def status(self, name: str) -> os.stat_result:
        """What a name stands for; of a link, the link itself."""
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def identity(self, name: str) -> FileIdentity | None:
        """Which file a name stands for; None when there is none."""
        try:
            found = self.status(name)
        except FileNotFoundError:
            return None
        return FileIdentity(found.st_dev, found.st_ino)

    def has(self, name: str) -> bool:
        """Whether anything has this name."""
        return self.identity(name) is not None

    def names(self) -> list[str]:
        """All names in it, sorted."""
        return sorted(os.listdir(self.fd))  # noqa: PTH208 - by the descriptor

    def clear(self, *, keep: Collection[str] = ()) -> None:
        """Remove all that is in it but ``keep``, with folders and all that they hold. Others may remove it, too.

        A folder is taken over before it is emptied, so that nobody adds to it meanwhile, and what it holds is emptied
        beside it: it may be deeper than there are file descriptors.
        """
        pending = [name for name in self.names() if name not in keep]
        while pending:
            name = pending.pop()
            try:
                self._remove(name, pending)
            except FileNotFoundError:
                continue

    def _remove(self, name: str, pending: list[str]) -> None:
        if not stat.S_ISDIR(self.status(name).st_mode):
            os.unlink(name, dir_fd=self.fd)
            return
        with self.folder(name) as folder:
            folder.take_over()
            for inner in folder.names():
                if not stat.S_ISDIR(folder.status(inner).st_mode):
                    os.unlink(inner, dir_fd=folder.fd)
                    continue
                moved = f".removed-{os.urandom(8).hex()}"
                os.rename(inner, moved, src_dir_fd=folder.fd, dst_dir_fd=self.fd)
                pending.append(moved)
        os.rmdir(name, dir_fd=self.fd)

    def take_over(self) -> None:
        """Make it this user's alone."""
        if self.owner != os.geteuid():
            os.fchown(self.fd, os.geteuid(), -1)
            self.owner = os.geteuid()
        os.fchmod(self.fd, 0o700)

    def _check_file(self, name: str, found: os.stat_result) -> None:
        kind = "a link" if stat.S_ISLNK(found.st_mode) else other_kind(found)
        if kind:
            raise _unsafe(self.path / name, f"is {kind}, and no regular file")
        self._check_owner(name, found)

    def _check_owner(self, name: str, found: os.stat_result) -> None:
        if found.st_uid != self.owner:
            raise _unsafe(self.path / name, f"belongs to another user (uid {found.st_uid})")


def _unsafe(path: Path, problem: str) -> UnsafeFile:
    return UnsafeFile(f"{path} {problem}: it is not used", hint="find out who put it there, then remove it")
