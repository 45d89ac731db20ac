"""OpenPGP keys of a test's own, made by gpg, and what they sign."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests import needs


class Signer:
    """A key in a folder of its own; ``expired``: one of the past, as are its signatures."""

    def __init__(self, folder: Path, *, expired: bool = False) -> None:
        folder.mkdir(mode=0o700)
        self._folder = folder
        self._clock = ["--faked-system-time", "20200101T000000!"] if expired else []
        needs.program("gpg", "gnupg")
        needs.program("gpgv", "gpgv")
        until = "1d" if expired else "never"
        self._gpg("--passphrase", "", "--quick-gen-key", "Publisher <images@example.org>", "ed25519", "sign", until)

    def public(self, *, armour: bool = False) -> Path:
        """A file with the public key."""
        file = self._folder / ("key.asc" if armour else "key.gpg")
        file.write_bytes(self._gpg(*(["--armor"] if armour else []), "--export"))
        return file

    def detached(self, content: bytes, *, armour: bool = False) -> bytes:
        """The signature of ``content``."""
        return self._gpg(*(["--armor"] if armour else []), "--detach-sign", given=content)

    def clearsigned(self, content: bytes) -> bytes:
        """``content`` with its signature below."""
        return self._gpg("--clearsign", given=content)

    def end(self) -> None:
        """End the agent that gpg started for the folder."""
        subprocess.run(["gpgconf", "--homedir", self._folder, "--kill", "all"], check=True)

    def _gpg(self, *options: str, given: bytes = b"") -> bytes:
        quiet = ["--batch", "--quiet", "--pinentry-mode", "loopback"]
        command = ["gpg", "--homedir", str(self._folder), *quiet, *self._clock, *options]
        return subprocess.run(command, input=given, capture_output=True, check=True).stdout
