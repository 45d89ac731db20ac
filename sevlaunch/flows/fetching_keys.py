"""Fetching what a report of an SNP guest is checked with, from AMD's key distribution service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sevlaunch.atomic import write_whole
from sevlaunch.errors import HostError, ImageError, UsageError
from sevlaunch.image.web import Broken, Line, read_text
from sevlaunch.owner.key_service import (
    CHAIN,
    KEY,
    REVOCATIONS,
    KeyIdentity,
    addresses_of,
    key_of_report,
    store_path,
)
from sevlaunch.owner.x509_files import parse_certificates, parse_revocations
from sevlaunch.sevapi.constants import KEY_SERVICE

_READ: dict[str, Callable[[bytes], object]] = {
    KEY: parse_certificates,
    CHAIN: parse_certificates,
    REVOCATIONS: parse_revocations,
}


# AMD's server allows each client few requests in a short time, and then answers 429.
TRIES = 5
# Seconds before the second try; each later one waits twice as long.
_FIRST_WAIT = 2.0
# Seconds that a server may ask to be left alone.
_LONGEST_WAIT = 60.0


def fetch_keys(
    report: bytes | KeyIdentity,
    folder: Path,
    *,
    generation: str = "",
    server: str = KEY_SERVICE,
    store: Path | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> dict[Path, str]:
    """Bring certificates and revocation list for a report into a folder, for ``certs`` of its verification.

    It waits for the network, each time up to half a minute, and tries again, later each time, when the server has no
    time or breaks off. Nothing is believed here: whether AMD has signed them is for
    :func:`sevlaunch.owner.report.verify_report`.

    :param report: 1184 bytes, with ``generation`` as for :func:`sevlaunch.owner.key_service.key_of_report`; or the key.
    :param server: as for :func:`sevlaunch.owner.key_service.key_addresses`.
    :param store: a folder for trustee's OfflineStore, which gets the VCEK, too.
    :param told: gets a sentence before each further try.
    :return: where each file came from. All of them are there, or the folders are as they were.
    :raise UsageError: when the report does not tell which files these are.
    :raise HostError: when one can't be fetched, is none of its kind, or can't be written.
    """
    key = key_of_report(report, generation) if isinstance(report, bytes) else report
    stored = store / store_path(key) if store else None
    addresses = addresses_of(key, server)
    found = {name: _fetched(name, url, told) for name, url in addresses.items()}
    places = {folder / name: name for name in addresses}
    if stored:
        places[stored] = KEY
    for place in {path.parent for path in places}:
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HostError(f"can't make the folder {place}: {error.strerror}", hint="name another one") from error
    for path, name in places.items():
        write_whole(path, found[name])
    return {path: addresses[name] for path, name in places.items()}


def _fetched(name: str, url: str, told: Callable[[str], None]) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise UsageError(f"wanted the URL of a server, found {url}", hint="https://HOST")
    try:
        content = _read_at_last(url, told)
    except ImageError as error:
        raise HostError(error.message, hint=error.hint) from error
    try:
        _READ[name](content)
    except ValueError as error:
        raise HostError(f"{url}: {error}", hint="is this AMD's server, or something between here and there?") from error
    return content


def _read_at_last(url: str, told: Callable[[str], None]) -> bytes:
    line = Line()
    for number in range(TRIES - 1):
        try:
            return read_text(url, line)
        except Broken as error:
            wait = max(_FIRST_WAIT * 2**number, min(error.wait, _LONGEST_WAIT))
            told(f"{error.message}; trying again in {wait:.0f} s")
            line.pause(wait)
    return read_text(url, line)
