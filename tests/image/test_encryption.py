"""Servers over HTTPS: whose certificate is believed, and where a redirection may lead."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from sevlaunch.errors import ImageError
from sevlaunch.image.fetch import fetch_image
from sevlaunch.image.proof import FetchOptions
from sevlaunch.image.web import is_private
from tests.image.server import Server, serving

CONTENT = b"a disk" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def certificate(folder: Path, *, days: int = 30, address: str = "127.0.0.1") -> Path:
    """A file with a certificate that signs itself, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / f"{address}-{days}.pem"
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@pytest.fixture
def encrypted(base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server whose certificate this machine believes."""
    file = certificate(base)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with serving(certificate=file) as server:
        yield server


def test_a_server_with_a_valid_certificate(encrypted: Server, cache: Path) -> None:
    url = encrypted.put("disk.img", CONTENT, breaks_after=[1000, None])
    assert url.startswith("https://")
    assert fetch_image(url, SHA256, options=FetchOptions(first_wait=0)).path.read_bytes() == CONTENT
    sums = encrypted.put("SUMS", f"{SHA256}  disk.img\n".encode())
    assert fetch_image(url, options=FetchOptions(checksums=sums)).entry == f"sha256-{SHA256}"


@pytest.mark.parametrize(
    ("days", "address", "believed", "reason"),
    [
        (30, "127.0.0.1", False, "self-signed certificate|self signed certificate"),
        (-1, "127.0.0.1", True, "certificate has expired"),
        (30, "192.0.2.1", True, "IP address mismatch"),
    ],
)
def test_one_without_is_refused(
    base: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, days: int, address: str, believed: bool, reason: str
) -> None:
    file = certificate(base, days=days, address=address)
    if believed:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with serving(certificate=file) as server:
        url = server.put("disk.img", CONTENT)
        with pytest.raises(ImageError, match=rf"the certificate of 127\.0\.0\.1 is not valid: .*({reason})"):
            fetch_image(url, SHA256)
        assert server.asked == []


def test_no_redirection_leads_out_of_encryption(encrypted: Server, server: Server, cache: Path) -> None:
    plain = server.put("disk.img", CONTENT)
    out = encrypted.put("out.img", b"", status=302, location=plain)
    with pytest.raises(ImageError, match=r"redirects to http://.*, which is not encrypted: it is not followed"):
        fetch_image(out, SHA256)
    assert server.asked == []
    inside = encrypted.put("in.img", b"", status=302, location=encrypted.put("disk.img", CONTENT))
    into = server.put("into.img", b"", status=302, location=inside)
    assert fetch_image(into, SHA256).new
    elsewhere = encrypted.put("file.img", b"", status=302, location="file:///etc/passwd")
    with pytest.raises(ImageError, match=r"not encrypted|302"):
        fetch_image(elsewhere, "ab" * 32)


def test_what_nobody_on_the_way_can_change(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(map(is_private, ("https://x/y", "http://127.0.0.1:1/y", "http://localhost/y", "http://[::1]/y")))
    assert not any(map(is_private, ("http://x/y", "http://10.0.0.1/y", "http://127.0.0.1.example.org/y")))
    monkeypatch.setenv("http_proxy", "http://proxy.example.org:3128")
    assert not is_private("http://127.0.0.1/y") and is_private("https://x/y")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert is_private("http://127.0.0.1/y")


def test_a_server_without_encryption_behind_https(server: Server, cache: Path) -> None:
    url = server.put("disk.img", CONTENT).replace("http://", "https://")
    with pytest.raises(ImageError, match=r"can't be reached|breaks off"):
        fetch_image(url, SHA256, options=FetchOptions(tries=1))
