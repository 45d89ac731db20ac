"""What vouches for an image: files of checksums in each style, signatures of each kind, and neither."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import ImageError, UsageError
from sevlaunch.image import proof
from sevlaunch.image.fetch import Fetched, fetch_image
from sevlaunch.image.proof import FetchOptions
from sevlaunch.image.store import list_images
from tests.image.keys import Signer
from tests.image.server import Server

CONTENT = b"a disk, as it were" * 5000
SHA256, SHA512 = hashlib.sha256(CONTENT).hexdigest(), hashlib.sha512(CONTENT).hexdigest()
SUMS = f"{'0' * 64}  other.raw\n{SHA256} *disk.raw\n".encode()


@pytest.fixture
def signer(base: Path) -> Iterator[Signer]:
    """A publisher's key."""
    signer = Signer(base / "publisher")
    yield signer
    signer.end()


def catalogue(base: Path, server: Server, **keys: Any) -> Path:
    """A catalogue with one image, ``own``."""
    entry = {"title": "Own", "image": f"{server.url}/disk.raw", "checksums": "SUMS", "user": "me", **keys}
    text = "[own]\n" + "".join(f"{key} = {value!r}\n" for key, value in entry.items())
    (base / "own.toml").write_text(text)
    return base / "own.toml"


def fetch(file: Path, *keyrings: Path, **options: Any) -> Fetched:
    """The image of that catalogue."""
    return fetch_image("own", options=FetchOptions(catalogue=file, keyrings=keyrings, tries=1, **options))


@pytest.mark.parametrize(
    "sums",
    [
        SUMS,
        f"{SHA512}  disk.raw\n".encode(),
        f"# disk.raw: {len(CONTENT)} bytes\nSHA256 (disk.raw) = {SHA256}\n".encode(),
        f"SHA512 (images/disk.raw) = {SHA512.upper()}\r\n".encode(),
        f"{SHA256}  ./disk.raw".encode(),
    ],
    ids=["sha256sum", "sha512sum", "bsd", "bsd-512", "with-folder"],
)
def test_a_publishers_checksum_is_enough_and_said_to_be_one(
    server: Server, cache: Path, base: Path, sums: bytes
) -> None:
    server.put("disk.raw", CONTENT)
    url = server.put("SUMS", sums)
    fetched = fetch(catalogue(base, server))
    assert fetched.path == cache / "own/image" and fetched.path.read_bytes() == CONTENT
    record = fetched.record
    assert (record.verified, record.by, record.sha256, record.user) == ("checksum", url, SHA256, "me")


@pytest.mark.parametrize(
    ("sums", "words"),
    [
        (f"{SHA256}  disk.raw.bak\n", "has no SHA-256 or SHA-512 of disk.raw"),
        (f"{'1' * 64}  disk.raw\n", "has other bytes than"),
        (f"{SHA256}  disk.raw\n{'1' * 64}  disk.raw\n", "it has two checksums of disk.raw"),
        (f"MD5 (disk.raw) = {SHA256}\nSHA256 (disk.raw) = {SHA512}\n", "has no SHA-256 or SHA-512 of disk.raw"),
        ("<html>Not here</html>", "has no SHA-256 or SHA-512 of disk.raw"),
        ("x" * (5 << 20), "has more than 4 MiB"),
    ],
)
def test_a_checksum_of_something_else_is_none(server: Server, cache: Path, base: Path, sums: str, words: str) -> None:
    server.put("disk.raw", CONTENT)
    server.put("SUMS", sums.encode())
    with pytest.raises(ImageError, match=words):
        fetch(catalogue(base, server))
    assert list_images() == []


def test_a_file_of_one_image_may_say_the_name_of_its_release(server: Server, cache: Path, base: Path) -> None:
    server.put("disk.raw", CONTENT)
    server.put("disk.raw.sha256", f"{SHA256}  disk-20261101.raw\n".encode())
    assert fetch(catalogue(base, server, checksums="{image}.sha256")).record.sha256 == SHA256


@pytest.mark.parametrize("armour", [False, True], ids=["binary", "armoured"])
def test_a_signature_of_the_checksums(server: Server, cache: Path, base: Path, signer: Signer, armour: bool) -> None:
    server.put("disk.raw", CONTENT)
    server.put("SUMS", SUMS)
    server.put("SUMS.gpg", signer.detached(SUMS, armour=armour))
    keyring = signer.public(armour=armour)
    # The key is known as that of a distribution's package would be, or it is given.
    known = catalogue(base, server, signature="SUMS.gpg", keyrings=[str(keyring), "/nowhere/key.gpg"])
    record = fetch(known).record
    assert record.verified == "signature" and record.by.startswith("key ")
    given = fetch(catalogue(base, server, signature="SUMS.gpg"), keyring, renew=True)
    assert not given.new and len(server.requests("disk.raw")) == 1


def test_checksums_that_are_signed_within(server: Server, cache: Path, base: Path, signer: Signer) -> None:
    """As Fedora's: what somebody wrote around the signed text does not count."""
    server.put("disk.raw", CONTENT)
    signed = signer.clearsigned(f"SHA256 (disk.raw) = {SHA256}\n".encode())
    server.put("SUMS", signed)
    file = catalogue(base, server, signed="inline", keyrings=[str(signer.public())])
    assert fetch(file).record.verified == "signature"
    server.put("SUMS", f"SHA256 (disk.raw) = {'1' * 64}\n".encode() + signed)
    assert fetch(file, renew=True).record.sha256 == SHA256
    server.put("SUMS", signed.replace(SHA256.encode(), b"1" * 64))
    with pytest.raises(ImageError, match="the signature is of other bytes"):
        fetch(file, renew=True)
    server.put("SUMS", SUMS)
    with pytest.raises(ImageError, match="no signature that holds"):
        fetch(file, renew=True)


def test_a_signature_of_the_image_itself(server: Server, cache: Path, base: Path, signer: Signer) -> None:
    """As Arch's."""
    server.put("disk.raw", CONTENT)
    server.put("SUMS", SUMS)
    server.put("disk.raw.sig", signer.detached(CONTENT))
    keyrings = [str(signer.public())]
    file = catalogue(base, server, signed="image", signature="{image}.sig", keyrings=keyrings)
    assert fetch(file).record.verified == "signature"
    # Its own text is signed, and the image is not.
    server.put("disk.raw.sig", signer.clearsigned(b"hello"))
    other = CONTENT + b"!"
    server.put("disk.raw", other)
    server.put("SUMS", f"{hashlib.sha256(other).hexdigest()}  disk.raw\n".encode())
    with pytest.raises(ImageError, match="no signature that holds"):
        fetch(file, renew=True)
    [kept] = list_images()
    assert kept.state == "whole" and kept.path.read_bytes() == CONTENT


def test_what_does_not_hold_is_refused(server: Server, cache: Path, base: Path, signer: Signer) -> None:
    server.put("disk.raw", CONTENT)
    server.put("SUMS", SUMS)
    keyring = signer.public()
    file = catalogue(base, server, signature="SUMS.gpg", keyrings=[str(keyring)])
    with pytest.raises(ImageError, match=r"own is unsigned: .*SUMS.gpg is not there"):
        fetch(file)
    server.put("SUMS.gpg", signer.detached(SUMS + b"\n"))
    with pytest.raises(ImageError, match="the signature is of other bytes"):
        fetch(file)
    server.put("SUMS.gpg", b"hello")
    with pytest.raises(ImageError, match="no signature that holds"):
        fetch(file)
    other = Signer(base / "other")
    try:
        server.put("SUMS.gpg", other.detached(SUMS))
        with pytest.raises(ImageError, match=rf"signed by the key [0-9A-F]{{16}}, which is not in {keyring}"):
            fetch(file)
    finally:
        other.end()
    old = Signer(base / "old", expired=True)
    server.put("SUMS.gpg", old.detached(SUMS))
    with pytest.raises(ImageError, match="has expired or was revoked"):
        fetch(file, old.public())
    old.end()
    assert list_images() == [] and not server.requests("disk.raw")


def test_a_signature_that_can_t_be_checked_leaves_the_checksum(
    server: Server, cache: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("disk.raw", CONTENT)
    server.put("SUMS", SUMS)
    file = catalogue(base, server, signature="SUMS.gpg", keyrings=["/nowhere/key.gpg"])
    assert fetch(file).record.verified == "checksum"
    (base / "key.gpg").write_bytes(b"")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert fetch(catalogue(base, server, signature="SUMS.gpg", keyrings=[str(base / "key.gpg")])).record
    with pytest.raises(ImageError, match="no gpgv here"):
        server.put("SUMS.gpg", b"")
        fetch(file, base / "key.gpg", renew=True)


def test_what_comes_unencrypted_and_unsigned_vouches_for_nothing(
    server: Server, cache: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.put("disk.raw", CONTENT)
    server.put("SUMS", SUMS)
    monkeypatch.setattr(proof, "is_private", lambda url: False)
    with pytest.raises(ImageError, match="comes unencrypted and unsigned: it vouches for nothing"):
        fetch(catalogue(base, server))
    # Who gives the checksum trusts nobody on the way.
    assert fetch_image(f"{server.url}/disk.raw", SHA256).new


def test_a_newer_image_is_taken_when_it_is_asked_for(server: Server, cache: Path, base: Path) -> None:
    server.put("disk.raw", CONTENT)
    server.put("SUMS", SUMS)
    file = catalogue(base, server)
    first = fetch(file)
    newer = CONTENT[::-1]
    server.put("disk.raw", newer, etag='"2"')
    server.put("SUMS", f"{hashlib.sha512(newer).hexdigest()}  disk.raw\n".encode())
    assert not fetch(file).new and first.path.read_bytes() == CONTENT
    with first.path.open("rb") as opened:
        second = fetch(file, renew=True)
        # Whoever runs from the old one goes on with it.
        assert opened.read() == CONTENT
    assert second.new and second.path == first.path and second.path.read_bytes() == newer
    assert second.record.sha256 == hashlib.sha256(newer).hexdigest()
    assert not fetch(file, renew=True).new
    # A newer one that can't be had leaves the one that is there.
    server.put("SUMS", SUMS)
    with pytest.raises(ImageError, match="has other bytes"):
        fetch(file, renew=True)
    assert fetch(file).record == second.record


def test_a_url_with_its_publishers_files(server: Server, cache: Path, signer: Signer) -> None:
    url, sums = server.put("disk.raw", CONTENT), server.put("SUMS", SUMS)
    options = FetchOptions(
        checksums=sums, signature=server.put("SUMS.sig", signer.detached(SUMS)), keyrings=(signer.public(),)
    )
    fetched = fetch_image(url, options=options)
    assert fetched.record.verified == "signature" and fetched.entry == f"sha256-{SHA256}"
    assert not fetch_image("https://elsewhere.invalid/x", SHA256).new
    server.put("SUMS", f"{SHA512}  disk.raw".encode())
    with pytest.raises(UsageError, match=r"has no SHA-256 of disk\.raw"):
        fetch_image(url, options=FetchOptions(checksums=sums))
    with pytest.raises(UsageError, match=r"no signature of .* is known"):
        fetch_image(url, options=FetchOptions(checksums=sums, keyrings=(signer.public(),)))
    with pytest.raises(UsageError, match="--sha256 proves an image by itself"):
        fetch_image(url, SHA256, options=FetchOptions(keyrings=(signer.public(),)))
