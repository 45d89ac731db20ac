"""Fetching what a report of an SNP guest is checked with, from AMD's key distribution service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sevlaunch.atomic import write_whole
from sevlaunch.errors import HostError, ImageError, UsageError
from sevlaunch.image.web import Line, read_text
from sevlaunch.owner.key_service import CHAIN, KEY, REVOCATIONS, key_addresses
from sevlaunch.owner.x509_files import parse_certificates, parse_revocations
from sevlaunch.sevapi.constants import KEY_SERVICE

_READ: dict[str, Callable[[bytes], object]] = {
    KEY: parse_certificates,
    CHAIN: parse_certificates,
    REVOCATIONS: parse_revocations,
}


def fetch_keys(report: bytes, folder: Path, *, generation: str = "", server: str = KEY_SERVICE) -> dict[Path, str]:
    """Bring certificates and revocation list for a report into a folder, for ``certs`` of its verification.

    It waits for the network, each time up to half a minute. Nothing is believed here: whether AMD has signed them is
    for :func:`sevlaunch.owner.report.verify_report`.

    :param report: 1184 bytes; ``generation`` and ``server`` as for
        :func:`sevlaunch.owner.key_service.key_addresses`.
    :return: where each file came from. All of them are there, or the folder is as it was.
    :raise UsageError: when the report does not tell which files these are.
    :raise HostError: when one can't be fetched, is none of its kind, or can't be written.
    """
    addresses = key_addresses(report, generation=generation, server=server)
    found = {name: _fetched(name, url) for name, url in addresses.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostError(f"can't make the folder {folder}: {error.strerror}", hint="name another one") from error
    for name, content in found.items():
        write_whole(folder / name, content)
    return {folder / name: url for name, url in addresses.items()}


def _fetched(name: str, url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"wanted the URL of a server, found {url}", hint="https://HOST")
    try:
        content = read_text(url, Line())
    except ImageError as error:
        raise HostError(error.message, hint=error.hint) from error
    try:
        _READ[name](content)
    except ValueError as error:
        raise HostError(f"{url}: {error}", hint="is this AMD's server, or something between here and there?") from error
    return content
