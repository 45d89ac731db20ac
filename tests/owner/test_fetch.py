"""`owner fetch`: what a report is checked with, from a server that has AMD's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sevlaunch import sync
from sevlaunch.errors import HostError, UsageError
from sevlaunch.owner.key_service import key_addresses
from tests.conftest import Command
from tests.image.server import Server, serving
from tests.owner.pki import Processor, der, pem, processor, revocation_list
from tests.owner.test_report_command import WAIVED
from tests.published import vector

TCB = "blSPL=03&teeSPL=00&snpSPL=08&ucodeSPL=115"


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on loopback."""
    with serving() as running:
        yield running


def identity(made: Processor) -> str:
    """The processor's identity, as in an address."""
    return made.report.chip_id.hex()


def serve(server: Server, made: Processor) -> None:
    """Serve what AMD has for a processor."""
    server.put(f"vcek/v1/Milan/{identity(made)}?{TCB}", der(made.certificates[0]))
    server.put("vcek/v1/Milan/cert_chain", pem(*made.certificates[1:]))
    server.put("vcek/v1/Milan/crl", revocation_list().public_bytes(Encoding.DER))


def test_what_is_fetched_is_what_the_report_is_checked_with(server: Server, sevlaunch: Command, tmp_path: Path) -> None:
    made = processor(version=3)
    serve(server, made)
    (tmp_path / "report").write_bytes(made.signed())
    (tmp_path / "root").write_bytes(pem(made.certificates[2]))
    fetch = ("owner", "fetch", tmp_path / "report", "--out", tmp_path / "keys/new", "--mirror", f"{server.url}/")
    told = sevlaunch(*fetch).stdout
    assert f"{tmp_path}/keys/new/vcek.der: {server.url}/vcek/v1/Milan/{identity(made)}?{TCB}" in told
    words = ("owner", "report", tmp_path / "report", "--certs", tmp_path / "keys/new", "--root", tmp_path / "root")
    done = sevlaunch(*words, "--at", "2026-01-01", *WAIVED)
    assert "revocation" in done.stdout
    # It is fetched anew, and a list that is newer takes the place of the other one.
    files = sevlaunch(*fetch, "--format", "json").json["files"]
    assert sorted(map(Path, files)) == sorted((tmp_path / "keys/new").iterdir())


def test_the_addresses_are_those_of_the_processor() -> None:
    base = "https://kdsintf.amd.com/vcek/v1"
    made = processor(version=2)
    assert key_addresses(made.signed(), generation="Milan") == {
        "vcek.der": f"{base}/Milan/{identity(made)}?{TCB}",
        "chain.pem": f"{base}/Milan/cert_chain",
        "crl.der": f"{base}/Milan/crl",
    }
    # Since Turin the identity is shorter, and FMC is a part of the TCB.
    turin = processor("Turin", version=3)
    found = key_addresses(turin.signed())["vcek.der"]
    assert found == f"{base}/Turin/{identity(turin)[:16]}?fmcSPL=01&{TCB}"
    # A VLEK is the host's.
    vlek = key_addresses(processor(version=3, vlek=True).signed())
    assert list(vlek) == ["chain.pem", "crl.der"]
    assert vlek["crl.der"] == "https://kdsintf.amd.com/vlek/v1/Milan/crl"


def test_the_address_of_a_published_certificate() -> None:
    report = bytes.fromhex(vector("milan-report.hex").decode())
    found = key_addresses(report, generation="Milan")["vcek.der"]
    assert found.startswith("https://kdsintf.amd.com/vcek/v1/Milan/")
    assert len(found.rpartition("/")[2].partition("?")[0]) == 128


def test_a_report_that_does_not_tell_enough_is_refused() -> None:
    with pytest.raises(UsageError, match="a report of version 2 does not tell it"):
        key_addresses(processor(version=2).signed())
    with pytest.raises(UsageError, match="found 'Nonsense'"):
        key_addresses(processor(version=2).signed(), generation="Nonsense")
    with pytest.raises(UsageError, match="is one of Milan, not of Genoa"):
        key_addresses(processor(version=3).signed(), generation="Genoa")
    with pytest.raises(UsageError, match="can't be read"):
        key_addresses(b"")
    report = bytearray(processor(version=3).signed())
    # CHIP_ID: AMD 56860, table "ATTESTATION_REPORT", offset 0x1A0.
    report[0x1A0:0x1E0] = bytes(64)
    with pytest.raises(UsageError, match="MASK_CHIP_ID"):
        key_addresses(bytes(report))


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("cert_chain", b"<html>Welcome to this hotel</html>", "cert_chain: no X.509 certificate"),
        ("crl", b"", "crl: no revocation list"),
        ("crl", None, "crl is not there"),
    ],
)
def test_what_is_no_key_is_not_written(
    path: str, content: bytes | None, message: str, server: Server, tmp_path: Path
) -> None:
    made = processor(version=3)
    serve(server, made)
    if content is None:
        del server.files[f"vcek/v1/Milan/{path}"]
    else:
        server.put(f"vcek/v1/Milan/{path}", content)
    with pytest.raises(HostError, match=message):
        sync.fetch_keys(made.signed(), tmp_path / "keys", server=server.url)
    assert not (tmp_path / "keys").exists()


def test_too_many_requests_and_no_server_are_told(server: Server, sevlaunch: Command, tmp_path: Path) -> None:
    made = processor(version=3)
    serve(server, made)
    server.put("vcek/v1/Milan/crl", b"", status=429)
    (tmp_path / "report").write_bytes(made.signed())
    fetch = ("owner", "fetch", tmp_path / "report", "--out", tmp_path / "keys", "--mirror")
    assert "the server answers 429" in sevlaunch(*fetch, server.url, check=4).stderr
    assert "refuses the connection" in sevlaunch(*fetch, "http://127.0.0.1:1", check=4).stderr
    assert "wanted the URL of a server" in sevlaunch(*fetch, "file:///etc", check=2).stderr
