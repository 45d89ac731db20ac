"""What an owner is given is recognised or refused, in bounded memory; what is made is whole or not there."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevlaunch.errors import EvidenceError, SevlaunchError, UsageError
from sevlaunch.owner.files import NewFile, decode_text, read_blob, read_bounded, write_new
from sevlaunch.owner.x509_files import parse_certificates, read_folder
from tests.owner.pki import der, pem, processor

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "base64": base64.b64encode,
    "base64 in lines": base64.encodebytes,
    "hexadecimal": lambda content: content.hex().encode(),
    "hexadecimal with 0x": lambda content: b"0x" + content.hex().encode() + b"\n",
    "hexadecimal in capitals": lambda content: content.hex().upper().encode() + b"\r\n",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_way_to_write_a_blob_is_recognised(encoding: str, tmp_path: Path) -> None:
    content = bytes(range(128))
    file = tmp_path / "blob"
    file.write_bytes(ENCODINGS[encoding](content))
    assert read_blob(file, "blob", [128]) == content


def test_what_could_be_two_is_never_guessed(tmp_path: Path) -> None:
    # 64 hexadecimal digits are 64 raw bytes, 32 in hexadecimal and 48 in base64.
    file = tmp_path / "blob"
    file.write_bytes(b"a1" * 32)
    assert read_blob(file, "blob", [32]) == b"\xa1" * 32
    with pytest.raises(UsageError, match="more than one way"):
        read_blob(file, "blob", [32, 48])
    with pytest.raises(UsageError, match="more than one way"):
        read_blob(file, "blob", [32, 64])


@given(st.binary(max_size=40), st.integers(0, 400))
def test_base64_has_one_spelling(content: bytes, bit: int) -> None:
    text = base64.b64encode(content)
    assert content in decode_text(text) or not content
    if bit < 8 * len(text):
        changed = bytearray(text)
        changed[bit // 8] ^= 1 << bit % 8
        if b"".join(bytes(changed).split()) == bytes(changed):
            assert content not in decode_text(bytes(changed)) or changed == text


def test_a_file_that_is_none_is_refused_with_the_error_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "blob"
    for content in (b"", b"x" * 10, b"x" * 10000):
        file.write_bytes(content)
        for error in (UsageError, EvidenceError):
            with pytest.raises(error, match="blob"):
                read_blob(file, "blob", [16, 32], error=error)
    for missing in (tmp_path / "nothing", tmp_path, Path("nul\0")):
        with pytest.raises(UsageError, match="can't read"):
            read_blob(missing, "blob", [16], error=EvidenceError)


def test_no_more_is_read_than_needed() -> None:
    with pytest.raises(UsageError, match="has more"):
        read_bounded(Path("/dev/zero"), "blob", 100)


def test_new_files_are_there_with_their_modes(tmp_path: Path) -> None:
    public, secret = tmp_path / "public", tmp_path / "secret"
    write_new([NewFile(public, b"p"), NewFile(secret, b"s", secret=True)])
    assert (public.read_bytes(), secret.read_bytes()) == (b"p", b"s")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["public", "secret"]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_that_exists_stops_all(position: int, tmp_path: Path) -> None:
    files = [NewFile(tmp_path / name, b"new") for name in "abc"]
    files[position].path.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists already"):
        write_new(files)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_link_that_leads_nowhere_is_there_too(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="exists already"):
        write_new([NewFile(tmp_path / "a", b"new", secret=True)])
    assert not (tmp_path / "elsewhere").exists()


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(source: Path, target: Path) -> None:
        if target.name == "b":
            target.write_bytes(b"old")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(UsageError, match="b exists already"):
        write_new([NewFile(tmp_path / name, b"new") for name in "abc"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"b": b"old"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("position", ["a", "b"])
def test_an_interruption_leaves_nothing(
    error: BaseException, position: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def interrupted(source: Path, target: Path) -> None:
        if target.name == position:
            raise error
        link(source, target)

    monkeypatch.setattr(os, "link", interrupted)
    with pytest.raises((KeyboardInterrupt, SevlaunchError)):
        write_new([NewFile(tmp_path / name, b"new") for name in "ab"])
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="can't write"):
        write_new([NewFile(tmp_path / "a", b"new"), NewFile(tmp_path / "missing/b", b"new")])
    assert list(tmp_path.iterdir()) == []


def test_certificates_are_found_under_whatever_name(tmp_path: Path) -> None:
    vcek, ask, ark = processor().certificates
    (tmp_path / "one.txt").write_bytes(der(vcek))
    (tmp_path / "two").write_bytes(pem(ask).replace(b"\n", b"\r\n") + b"\n\n" + pem(ark))
    (tmp_path / "README").write_text("no certificate\n")
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(4 << 30)
    found = read_folder(tmp_path)
    assert set(found.certificates) == {vcek, ask, ark}
    assert sorted(line.partition(":")[0] for line in found.skipped) == ["README", "empty", "large"]


@pytest.mark.parametrize("change", [(b"\n", b""), (b"-----END", b"----END"), (b"-----\n", b"-----\nx\n"), (b"M", b"@")])
def test_a_damaged_pem_is_refused_whole(change: tuple[bytes, bytes]) -> None:
    _, ask, ark = processor().certificates
    with pytest.raises(ValueError):
        parse_certificates(pem(ask) + pem(ark).replace(*change, 1))


def test_der_may_come_as_text_but_never_with_more_behind_it() -> None:
    vcek = processor().certificates[0]
    for encode in ENCODINGS.values():
        assert parse_certificates(encode(der(vcek))) == (vcek,)
    for content in (b"", der(vcek)[:-1], der(vcek) + b"\0", b"text " + pem(vcek), pem(vcek) + b"text"):
        with pytest.raises(ValueError):
            parse_certificates(content)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        read_folder(tmp_path / "missing")
