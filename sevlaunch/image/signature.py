"""Signatures of publishers, which gpgv checks against the keyrings that are there."""

from __future__ import annotations

import base64
import binascii
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import ImageError, UsageError
from sevlaunch.files import read_bounded

INSTALL_GPGV = "install gpgv (Debian, Ubuntu: gpgv; Fedora, RHEL: gnupg2; openSUSE, SLES: gpg2)"
_NEWER = "name a file with the publisher's key: --keyring FILE; or give the image's own checksum: --sha256 HEX"
# Some seconds for an image of a gigabyte.
_LIMIT = 300.0
_MAX_KEYRING = 16 << 20
# RFC 9580, 6.2: armour has headers, an empty line, base64, and a checksum that may be left out.
_ARMOUR = re.compile(
    rb"-----BEGIN PGP PUBLIC KEY BLOCK-----[^\n]*\n(?:[^\n]+\n)*?\s*\n(.*?)(?:\n=[^\n]*)?\n-----END PGP PUBLIC KEY",
    re.DOTALL,
)
_VALID = re.compile(r"\[GNUPG:\] VALIDSIG (\S+)(?: \S+){8} ([0-9A-F]{40,64})")


class Signed(Struct, frozen=True):
    """A signature that holds: the fingerprint of the key, and the content that is signed."""

    key: str
    content: bytes


def has_gpgv() -> bool:
    """Whether there is a gpgv."""
    return shutil.which("gpgv") is not None


def check_signature(what: str, content: bytes | Path, signature: bytes | None, keyrings: Sequence[Path]) -> Signed:
    """See that ``content`` is signed by a key of ``keyrings``.

    :param what: what it is, for messages.
    :param content: it, or the file that it is in.
    :param signature: its signature; None: it is clearsigned.
    :raise ImageError: when it is not, or gpgv can't tell.
    :raise UsageError: when a keyring can't be read.
    """
    program = shutil.which("gpgv")
    if program is None:
        raise ImageError(f"{what}: no gpgv here to check the signature", hint=INSTALL_GPGV)
    with tempfile.TemporaryDirectory(prefix="sevlaunch-") as home:
        argv = [program, "--quiet", "--status-fd", "2", "--homedir", home]
        for number, keyring in enumerate(keyrings):
            keys = _unarmoured(read_bounded(keyring, "keyring", _MAX_KEYRING))
            argv += ["--keyring", str(_written(Path(home) / f"keys-{number}.gpg", keys))]
        file = content if isinstance(content, Path) else _written(Path(home) / "content", content)
        if signature is None:
            argv += ["--output", "-", str(file)]
        else:
            argv += [str(_written(Path(home) / "signature", signature)), str(file)]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_LIMIT,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ImageError(f"{what}: can't run {program}: {error}") from error
    status = done.stderr.decode("utf-8", "replace")
    valid = _VALID.search(status)
    # GOODSIG alone is of a key that is neither expired nor revoked; a signature that brings its own text along
    # (PLAINTEXT) says nothing of the file beside it.
    brings_text = "[GNUPG:] PLAINTEXT " in status
    if done.returncode == 0 and valid and "[GNUPG:] GOODSIG " in status and brings_text == (signature is None):
        return Signed(valid[2], done.stdout)
    raise _refused(what, status, keyrings)


def _written(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file


def _refused(what: str, status: str, keyrings: Sequence[Path]) -> ImageError:
    of = " and ".join(map(str, keyrings))
    if "[GNUPG:] BADSIG" in status:
        return ImageError(f"{what}: the signature is of other bytes", hint="try again later, or another mirror")
    if "[GNUPG:] EXPKEYSIG" in status or "[GNUPG:] KEYEXPIRED" in status or "[GNUPG:] REVKEYSIG" in status:
        return ImageError(f"{what}: the key that signed it, of {of}, has expired or was revoked", hint=_NEWER)
    if missing := re.search(r"\[GNUPG:\] (?:NO_PUBKEY|ERRSIG) ([0-9A-F]{16,})", status):
        return ImageError(f"{what}: it is signed by the key {missing[1]}, which is not in {of}", hint=_NEWER)
    told = [line for line in status.splitlines() if not line.startswith("[GNUPG:]")]
    return ImageError(f"{what}: no signature that holds: {' / '.join(told[-2:]) or 'gpgv found none'}", hint=_NEWER)


def _unarmoured(keys: bytes) -> bytes:
    """A keyring as gpgv reads it, which takes no armour."""
    if b"-----BEGIN PGP PUBLIC KEY BLOCK-----" not in keys:
        return keys
    try:
        return b"".join(base64.b64decode(block, validate=False) for block in _ARMOUR.findall(keys.replace(b"\r", b"")))
    except binascii.Error as error:
        raise UsageError(f"a keyring with damaged armour: {error}", hint="name another file") from error
