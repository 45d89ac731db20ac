"""What an owner is given is recognised or refused, in bounded memory; what is made is whole or not there."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevlaunch.errors import EvidenceError, SevlaunchError, UsageError
from sevlaunch.files import NewFile, decode_text, read_blob, read_bounded, write_new
from sevlaunch.owner.x509_files import parse_certificates, read_certificate_folder
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


@given(st.binary(min_size=1, max_size=40))
def test_base64_has_one_spelling(content: bytes) -> None:
    text = base64.b64encode(content)
    assert content in decode_text(text)
    last = len(text.rstrip(b"=")) - 1
    for bit in range(8):
        changed = text[:last] + bytes([text[last] ^ 1 << bit]) + text[last + 1 :]
        assert content not in decode_text(changed)


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


def test_no_more_is_read_than_needed(tmp_path: Path) -> None:
    # More than memory has room for.
    with (tmp_path / "large").open("wb") as large:
        large.truncate(1 << 42)
    with pytest.raises(UsageError, match="has more"):
        read_bounded(tmp_path / "large", "blob", 100)
    with pytest.raises(UsageError, match="it is a character device"):
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
    found = read_certificate_folder(tmp_path)
    assert set(found.certificates) == {vcek, ask, ark}
    assert sorted(line.partition(":")[0] for line in found.skipped) == ["README", "empty", "large"]


@pytest.mark.parametrize("change", [(b"\n", b""), (b"-----END", b"----END"), (b"-----\n", b"-----\nx\n"), (b"M", b"@")])
def test_a_damaged_pem_is_refused_whole(change: tuple[bytes, bytes]) -> None:
    _, ask, ark = processor().certificates
    with pytest.raises(ValueError):
        parse_certificates(pem(ask) + pem(ark).replace(*change, 1))


def test_text_between_the_blocks_of_a_pem_file_is_no_part_of_it() -> None:
    # RFC 7468 section 2; published chains say which certificate is which.
    first, second, third = processor().certificates
    content = b"# VCEK\n" + pem(first) + b"\n  Subject: CN = x\r\n" + pem(second, third) + b"the end"
    assert parse_certificates(content) == (first, second, third)
    damaged = pem(second).replace(b"-----END", b"-----DEN")
    for wrong in (damaged, b"-----BEGIN NOTHING-----\n" + pem(first), b"\xff\n" + pem(first)):
        with pytest.raises(ValueError):
            parse_certificates(wrong)


def test_der_may_come_as_text_but_never_with_more_behind_it() -> None:
    # Hexadecimal of an even number of bytes can be read as base64, too.
    made = [one for each in (processor(), processor("Turin"), processor(vlek=True)) for one in each.certificates]
    assert {len(der(one)) % 2 for one in made} == {0, 1}
    for vcek in made:
        for encode in ENCODINGS.values():
            assert parse_certificates(encode(der(vcek))) == (vcek,)
    for content in (b"", der(vcek)[:-1], der(vcek) + b"\0", b"text " + pem(vcek), pem(vcek) + b"\x01"):
        with pytest.raises(ValueError):
            parse_certificates(content)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="folder"):
        read_certificate_folder(tmp_path / "missing")


def test_unused_bits_of_a_signature_are_no_second_spelling() -> None:
    # An even last byte can drop its lowest bit from the BIT STRING: the signature stays the same.
    certificates = (processor().certificates[0] for _ in range(100))
    vcek = next(one for one in certificates if one.signature[-1] % 2 == 0)
    content = der(vcek)
    at = len(content) - len(vcek.signature) - 1
    assert content[at] == 0
    with pytest.raises(ValueError):
        parse_certificates(content[:at] + b"\x01" + content[at + 1 :])


def test_a_pem_has_one_spelling() -> None:
    certificates = [one for made in (processor(), processor("Turin", vlek=True)) for one in made.certificates]
    padded = next(one for one in certificates if len(der(one)) % 3)
    text = pem(padded)
    assert parse_certificates(text) == (padded,)
    last = text.index(b"=") - 1
    for bit in range(8):
        with suppress(ValueError):
            assert parse_certificates(text[:last] + bytes([text[last] ^ 1 << bit]) + text[last + 1 :]) != (padded,)


def test_the_algorithm_outside_of_the_signed_part_is_the_one_inside() -> None:
    content = der(processor().certificates[0])
    # The last occurrence of the salt's length, 48.
    at = content.rindex(b"\xa2\x03\x02\x01\x30") + 4
    with pytest.raises(ValueError):
        parse_certificates(content[:at] + b"\x20" + content[at + 1 :])


def test_a_folder_with_more_files_than_anyone_has_certificates_is_refused(tmp_path: Path) -> None:
    for number in range(256):
        (tmp_path / str(number)).write_bytes(b"x")
    assert len(read_certificate_folder(tmp_path).skipped) == 256
    (tmp_path / "one more").write_bytes(b"x")
    with pytest.raises(UsageError, match="has 257 files"):
        read_certificate_folder(tmp_path)
