"""`owner fetch`: what a report is checked with, from a server that has AMD's files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sevlaunch import sync
from sevlaunch.errors import HostError, UsageError
from sevlaunch.flows.fetching_keys import TRIES
from sevlaunch.image.web import Line
from sevlaunch.owner.key_service import key_addresses, key_of_chip, key_of_report, store_path
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


def test_a_server_without_time_is_asked_again(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = processor(version=3)
    serve(server, made)
    server.files["vcek/v1/Milan/crl"].busy = TRIES - 1
    server.files["vcek/v1/Milan/crl"].seconds = "7"
    pauses: list[float] = []
    monkeypatch.setattr(Line, "pause", lambda _, seconds: pauses.append(seconds))
    said: list[str] = []
    found = sync.fetch_keys(made.signed(), tmp_path / "keys", server=server.url, told=said.append)
    assert len(found) == 3
    # As long as the server asks for, and longer each time.
    assert pauses == [7, 7, 8, 16]
    assert all("429" in text and "trying again in" in text for text in said)
    server.files["vcek/v1/Milan/crl"].busy = TRIES
    with pytest.raises(HostError, match="the server answers 429"):
        sync.fetch_keys(made.signed(), tmp_path / "none", server=server.url)
    assert not (tmp_path / "none").exists()


def test_a_server_that_asks_for_an_hour_is_not_waited_for(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = processor(version=3)
    serve(server, made)
    server.files["vcek/v1/Milan/crl"].busy = 1
    server.files["vcek/v1/Milan/crl"].seconds = "3600"
    pauses: list[float] = []
    monkeypatch.setattr(Line, "pause", lambda _, seconds: pauses.append(seconds))
    sync.fetch_keys(made.signed(), tmp_path / "keys", server=server.url)
    assert pauses == [60]


def test_a_trustees_store_has_the_key_by_processor_and_tcb(server: Server, sevlaunch: Command, tmp_path: Path) -> None:
    made = processor(version=3)
    serve(server, made)
    (tmp_path / "report").write_bytes(made.signed())
    words = (
        "owner",
        "fetch",
        "--out",
        tmp_path / "keys",
        "--trustee-store",
        tmp_path / "store",
        "--mirror",
        server.url,
    )
    sevlaunch(*words, tmp_path / "report")
    file = tmp_path / f"store/vcek/{identity(made)}/bl03_tee00_snp08_ucode115_vcek.der"
    assert file.read_bytes() == der(made.certificates[0])
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == [file]
    # Without a report the same files come.
    before = {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}
    file.unlink()
    tcb = "boot_loader=3,tee=0,snp=8,microcode=115"
    sevlaunch(*words, "--chip-id", identity(made), "--tcb", tcb, "--generation", "Milan")
    assert file.exists()
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "keys").iterdir()}


def test_where_a_turins_key_is() -> None:
    turin = processor("Turin", version=3)
    chip = turin.report.chip_id
    by_report = key_of_report(turin.signed())
    assert str(store_path(by_report)) == f"vcek/{chip[:8].hex()}/bl03_tee00_snp08_ucode115_fmc01_vcek.der"
    parts = {"boot_loader": 3, "tee": 0, "snp": 8, "microcode": 115, "fmc": 1}
    for identity_bytes in (chip, chip[:8]):
        assert key_of_chip(identity_bytes, parts, "Turin") == by_report
    assert key_of_chip(chip, turin.report.reported_tcb, "Turin") == by_report
    with pytest.raises(UsageError, match="a VLEK has signed"):
        store_path(key_of_report(processor(version=3, vlek=True).signed()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "wanted a report, or --chip-id"),
        (("--chip-id", "ab"), "wanted a report, or --chip-id"),
        (("--chip-id", "ab" * 64, "--tcb", "snp=1"), "wanted the processor's generation"),
        (("--chip-id", "ab" * 64, "--tcb", "snp=1", "--generation", "Milan"), "wanted the whole TCB of a Milan"),
        (("--chip-id", "ab", "--tcb", "0x0000000000000000", "--generation", "Milan"), "64 bytes, found 1"),
        (("--chip-id", "ab" * 64, "--tcb", "0x0000000000000000", "--generation", "Turin"), "8 bytes, found 64"),
        (("--chip-id", "00" * 64, "--tcb", "0x0000000000000000", "--generation", "Milan"), "wanted the identity"),
        (("--chip-id", "xy", "--tcb", "snp=1", "--generation", "Milan"), "--chip-id, --tcb: "),
    ],
)
def test_a_processor_that_is_not_told_is_refused(
    words: tuple[str, ...], message: str, sevlaunch: Command, tmp_path: Path
) -> None:
    assert message in sevlaunch("owner", "fetch", "--out", tmp_path / "keys", *words, check=2).stderr
    assert not (tmp_path / "keys").exists()


def test_a_refusal_and_no_server_are_told(
    server: Server, sevlaunch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = processor(version=3)
    serve(server, made)
    server.put("vcek/v1/Milan/crl", b"", status=403)
    (tmp_path / "report").write_bytes(made.signed())
    fetch = ("owner", "fetch", tmp_path / "report", "--out", tmp_path / "keys", "--mirror")
    assert "the server answers 403" in sevlaunch(*fetch, server.url, check=4).stderr
    assert "wanted the URL of a server" in sevlaunch(*fetch, "file:///etc", check=2).stderr
    monkeypatch.setattr(Line, "pause", lambda *_: None)
    with pytest.raises(HostError, match="refuses the connection"):
        sync.fetch_keys(made.signed(), tmp_path / "keys", server="http://127.0.0.1:1")
