"""X.509 certificates and revocation lists from files, read so strictly that no bit of them can change unseen."""

from __future__ import annotations

import base64
import binascii
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning
from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.files import decode_text, read_bounded
from sevlaunch.sevapi.certificate_table import KNOWN, is_table, parse_table

# A PEM file with AMD's ASK, ARK and a VCEK has some 7 KiB.
_MAX_BYTES = 64 << 10
# AMD's lists have less than 1 KiB; each entry takes some 40 bytes.
_MAX_LIST_BYTES = 1 << 20
_MAX_FILES = 256
# RFC 7468 section 3, strict: nothing but base64 in a block. Between blocks there may be text, section 2: lines that are
# no part of one, which AMD's and others' files say with what a certificate is.
_LIST = b"X509 CRL"
_PEM_BLOCK = re.compile(
    rb"-----BEGIN (CERTIFICATE|X509 CRL)-----\r?\n((?:[A-Za-z0-9+/=]{1,76}\r?\n)+)-----END \1-----(?:\r?\n|\Z)"
)
_LINE_ENDS = re.compile(rb"\r?\n")
_TEXT_LINE = re.compile(rb"(?!-----)[\t\x20-\x7e]*(?:\r?\n|\Z)")
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
    """The certificates and revocation lists of a folder, and the names of files that hold none, with the reason."""

    certificates: tuple[x509.Certificate, ...]
    skipped: tuple[str, ...] = ()
    revocations: tuple[x509.CertificateRevocationList, ...] = ()


def read_certificate_folder(folder: Path) -> CertificateFolder:
    """What the files of ``folder`` hold, or the one file that it is: DER, PEM with one or more, or a host's table.

    :raise UsageError: when it can't be read, or has more than 256 files.
    """
    try:
        files = [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.is_file())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"certs: can't read the folder {folder}: {reason}", hint="name a folder") from error
    if len(files) > _MAX_FILES:
        raise UsageError(f"certs: {folder} has {len(files)} files", hint="give the certificates a folder of their own")
    found: list[CertificateFolder] = []
    skipped: list[str] = []
    for file in files:
        try:
            found.append(parse_x509(read_bounded(file, "certs", _MAX_BYTES)))
        except (UsageError, ValueError) as error:
            skipped.append(f"{file.name}: {error.message if isinstance(error, UsageError) else error}")
    return _joined(found, skipped)


def read_revocations(file: Path) -> tuple[x509.CertificateRevocationList, ...]:
    """The revocation lists in one file.

    :raise UsageError: when it holds none.
    """
    try:
        found = parse_x509(read_bounded(file, "crl", _MAX_LIST_BYTES)).revocations
    except ValueError as error:
        raise UsageError(f"crl: {file}: {error}", hint="give AMD's list in DER or PEM") from error
    if not found:
        raise UsageError(f"crl: {file} has certificates, and no revocation list", hint="give AMD's list in DER or PEM")
    return found


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
    found = parse_x509(content)
    if not found.certificates or found.revocations or found.skipped:
        raise ValueError("wanted X.509 certificates, and nothing else")
    return found.certificates


def parse_x509(content: bytes) -> CertificateFolder:
    """What ``content`` holds: a certificate or revocation list in DER, one or more in PEM, or a host's table of them.

    :raise ValueError: when it holds anything else.
    """
    return parse_certificate_table(content) if is_table(content) else _parse_single(content)


def parse_certificate_table(content: bytes) -> CertificateFolder:
    """What the table holds that a host gives with a report; ``skipped`` has what is damaged, or not known.

    :raise ValueError: when it is no table.
    """
    found: list[CertificateFolder] = []
    skipped: list[str] = []
    for guid, one in parse_table(content).items():
        try:
            if guid not in KNOWN:
                raise ValueError("nothing that is known")
            found.append(_parse_single(one))
        except ValueError as error:
            skipped.append(f"{KNOWN.get(guid, guid)}: {error}")
    return _joined(found, skipped)


def _joined(found: Sequence[CertificateFolder], skipped: Sequence[str]) -> CertificateFolder:
    return CertificateFolder(
        tuple(certificate for one in found for certificate in one.certificates),
        (*skipped, *(text for one in found for text in one.skipped)),
        tuple(each for one in found for each in one.revocations),
    )


def _parse_single(content: bytes) -> CertificateFolder:
    if b"-----BEGIN " in content:
        blocks = _pem_blocks(content)
        return CertificateFolder(
            tuple(parse_der(block) for label, block in blocks if label != _LIST),
            revocations=tuple(parse_revocations(block) for label, block in blocks if label == _LIST),
        )
    # DER may come as base64 or hexadecimal, copied from a terminal; hexadecimal can be read as base64, too.
    for reading in (content, *decode_text(content)):
        with suppress(ValueError):
            return CertificateFolder((parse_der(reading),))
        with suppress(ValueError):
            return CertificateFolder((), revocations=(parse_revocations(reading),))
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


def parse_revocations(content: bytes) -> x509.CertificateRevocationList:
    """The revocation list that ``content`` is in DER.

    :raise ValueError: when it is none.
    """
    try:
        found = x509.load_der_x509_crl(content)
        # These are decoded at their first use, which is here.
        _ = found.issuer, found.extensions, found.last_update_utc, found.next_update_utc, list(found)
        _ = found.signature_hash_algorithm, found.signature_algorithm_parameters
    except (*_DAMAGED, UnsupportedAlgorithm) as error:
        raise ValueError("no revocation list in DER") from error
    return found


def _pem_blocks(content: bytes) -> Sequence[tuple[bytes, bytes]]:
    blocks: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(content):
        if text_line := _TEXT_LINE.match(content, at):
            at = text_line.end()
            continue
        block = _PEM_BLOCK.match(content, at)
        if block is None:
            raise ValueError("the PEM file has something that is no certificate")
        text = _LINE_ENDS.sub(b"", block[2])
        try:
            decoded = base64.b64decode(text, validate=True)
        except binascii.Error as error:
            raise ValueError(f"the PEM file is damaged: {error}") from error
        if base64.b64encode(decoded) != text:
            raise ValueError("the PEM file is damaged: its base64 has bits that stand for nothing")
        blocks.append((block[1], decoded))
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
