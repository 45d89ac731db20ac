"""X.509 certificates from files, read so strictly that no bit of a file can change unseen."""

from __future__ import annotations

import base64
import binascii
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning
from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.files import decode_text, read_bounded

# A PEM file with AMD's ASK, ARK and a VCEK has some 7 KiB.
_MAX_BYTES = 64 << 10
_MAX_FILES = 256
# RFC 7468 section 3, strict: nothing but blocks, with nothing but base64 in them.
_PEM_BLOCK = re.compile(
    rb"-----BEGIN CERTIFICATE-----\r?\n((?:[A-Za-z0-9+/=]{1,76}\r?\n)+)-----END CERTIFICATE-----(?:\r?\n|\Z)"
)
_LINE_ENDS = re.compile(rb"\r?\n")
_BIT_STRING = 0x03
# What `cryptography` raises for what is no certificate.
_DAMAGED = (
    ValueError,
    TypeError,
    UserWarning,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class CertificateFolder(Struct, frozen=True):
    """The certificates of a folder, and the names of the files that hold none, each with the reason."""

    certificates: tuple[x509.Certificate, ...]
    skipped: tuple[str, ...]


def read_certificate_folder(folder: Path) -> CertificateFolder:
    """The certificates in the files of ``folder``: DER, or PEM with one or more; whatever their names.

    :raise UsageError: when it can't be read, or has more than 256 files.
    """
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"certs: can't read the folder {folder}: {reason}", hint="name a folder") from error
    if len(files) > _MAX_FILES:
        raise UsageError(f"certs: {folder} has {len(files)} files", hint="give the certificates a folder of their own")
    found: list[x509.Certificate] = []
    skipped: list[str] = []
    for file in files:
        try:
            found += parse_certificates(read_bounded(file, "certs", _MAX_BYTES))
        except (UsageError, ValueError) as error:
            skipped.append(f"{file.name}: {error.message if isinstance(error, UsageError) else error}")
    return CertificateFolder(tuple(found), tuple(skipped))


def read_certificates(file: Path, what: str) -> tuple[x509.Certificate, ...]:
    """The certificates in one file.

    :raise UsageError: when it holds anything else.
    """
    try:
        return parse_certificates(read_bounded(file, what, _MAX_BYTES))
    except ValueError as error:
        raise UsageError(f"{what}: {file}: {error}", hint="give X.509 certificates in DER or PEM") from error


def parse_certificates(content: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in ``content``: one in DER, or one or more in PEM.

    :raise ValueError: when it holds anything else.
    """
    if content.startswith(b"-----BEGIN"):
        return tuple(parse_der(block) for block in _pem_blocks(content))
    # DER may come as base64 or hexadecimal, copied from a terminal; hexadecimal can be read as base64, too.
    for reading in (content, *decode_text(content)):
        with suppress(ValueError):
            return (parse_der(reading),)
    raise ValueError("no X.509 certificate in DER or PEM")


def parse_der(content: bytes) -> x509.Certificate:
    """The certificate that ``content`` is, to its last bit.

    :raise ValueError: when it is none.
    """
    try:
        with warnings.catch_warnings():
            # The VCEK's serial number is zero: AMD 57230, table "VCEK Certificate Format".
            warnings.filterwarnings("ignore", "Parsed a .*serial number", CryptographyDeprecationWarning)
            # A name that `cryptography` only warns about is damaged.
            warnings.filterwarnings("error", "Attribute's length", UserWarning)
            certificate = x509.load_der_x509_certificate(content)
            # These are decoded at their first use, which is here, and kept.
            _ = certificate.subject, certificate.issuer, certificate.extensions
    except _DAMAGED as error:
        raise ValueError("no X.509 certificate in DER") from error
    if not _is_whole(certificate, content):
        raise ValueError("the certificate's signature is not encoded in DER, or not with the algorithm that is signed")
    return certificate


def _pem_blocks(content: bytes) -> Sequence[bytes]:
    blocks: list[bytes] = []
    at = 0
    while at < len(content):
        line_end = _LINE_ENDS.match(content, at)
        if line_end:
            at = line_end.end()
            continue
        block = _PEM_BLOCK.match(content, at)
        if block is None:
            raise ValueError("the PEM file has something that is no certificate")
        text = _LINE_ENDS.sub(b"", block[1])
        try:
            blocks.append(base64.b64decode(text, validate=True))
        except binascii.Error as error:
            raise ValueError(f"the PEM file is damaged: {error}") from error
        if base64.b64encode(blocks[-1]) != text:
            raise ValueError("the PEM file is damaged: its base64 has bits that stand for nothing")
        at = block.end()
    return blocks


def _is_whole(certificate: x509.Certificate, content: bytes) -> bool:
    """Whether all outside of the signed part follows from it: algorithm, and signature without unused bits."""
    signed, ending = certificate.tbs_certificate_bytes, _bit_string(certificate.signature)
    algorithm = content.removesuffix(ending).partition(signed)[2]
    return bool(algorithm) and algorithm in signed


def _bit_string(content: bytes) -> bytes:
    """DER, X.690 section 8.6, without unused bits."""
    body = b"\0" + content
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    prefix = b"" if len(body) < 0x80 else bytes([0x80 | len(length)])
    return bytes([_BIT_STRING]) + prefix + length + body
