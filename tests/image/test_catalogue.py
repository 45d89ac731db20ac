"""The catalogue that sevlaunch brings, one of one's own, and mirrors."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from sevlaunch.errors import UsageError
from sevlaunch.image.catalogue import CATALOGUE_VARIABLE, MIRROR_VARIABLE, mirrored, read_catalogue
from sevlaunch.image.checksums import find_checksum, signed_text
from sevlaunch.image.fetch import fetch_image
from sevlaunch.image.proof import FetchOptions
from sevlaunch.image_reference import is_name
from tests.image.server import Server, mirror

ENTRIES = read_catalogue()


@pytest.mark.parametrize("name", ENTRIES)
def test_each_entry_has_what_a_fetch_needs(name: str) -> None:
    entry = ENTRIES[name]
    assert is_name(name)
    urls = [entry.image, entry.checksums_url, *([entry.signature_url] if entry.signature else [])]
    assert {urlsplit(url).scheme for url in urls} == {"https"}
    assert len({urlsplit(url).netloc for url in urls}) == 1
    assert entry.image.endswith((".qcow2", ".img")) and "{" not in "".join(urls)
    assert entry.user and entry.boot
    assert bool(entry.keyrings) == entry.is_signed and all(Path(path).is_absolute() for path in entry.keyrings)


def test_the_systems_that_are_promised_are_there() -> None:
    systems = {re.split(r"-[0-9]|$", name)[0] for name in ENTRIES}
    assert systems == {
        *("debian", "ubuntu", "fedora", "centos-stream", "almalinux", "opensuse-leap", "opensuse-tumbleweed", "arch")
    }


def test_one_of_ones_own_goes_first(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = base / "own.toml"
    own.write_text(
        '[debian-13]\ntitle = "Ours"\nimage = "https://x/d.raw"\nchecksums = "https://y/SUMS"\nuser = "root"\n'
    )
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(own))
    entries = read_catalogue()
    assert entries["debian-13"].checksums_url == "https://y/SUMS" and next(iter(entries)) == "debian-13"
    assert set(entries) == set(ENTRIES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x]\ntitle = 1\n", "Expected"),
        ("[x]\n", "missing required field"),
        ('[x]\ntitle = "x"\nimage = "ftp://x/y"\nchecksums = "S"\nuser = "u"\n', "Expected `str` matching"),
        ('["../x"]\ntitle = "x"\nimage = "https://x/y"\nchecksums = "S"\nuser = "u"\n', "wanted a name of lower-case"),
        ("nonsense", "is no catalogue"),
    ],
)
def test_a_wrong_one_is_refused_with_the_reason(base: Path, text: str, words: str) -> None:
    (base / "own.toml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(words)):
        read_catalogue(base / "own.toml")


def test_a_mirror_has_the_files_below_their_hosts_names(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MIRROR_VARIABLE, f"{mirror(server, 'debian-13', b'an image' * 1000)}/")
    fetched = fetch_image("debian-13")
    assert fetched.record.user == "debian" and fetched.record.source.startswith(
        f"{server.url}/mirror/cloud.debian.org/"
    )
    assert mirrored("https://x/y?z=1", "http://m") == "http://m/x/y?z=1"
    with pytest.raises(UsageError, match="wanted an https URL as the mirror, found '/mnt/mirror'"):
        fetch_image("debian-12", options=FetchOptions(mirror="/mnt/mirror"))


def test_lines_of_checksums_are_read_as_their_programs_write_them() -> None:
    digest, long = "ab" * 32, "cd" * 64
    text = f"{digest}  a.img\n{digest} *b.img\n{digest}\tc.img\n{long}  a.img\n# b.img: 12 bytes\nSHA512 (d) = {long}\n"
    for name, found in {"a.img": long, "b.img": digest, "c.img": digest, "d": long}.items():
        checksum = find_checksum(text, name)
        assert checksum and checksum.digest == found, name
    assert find_checksum(text, "b.img").size == 12  # type: ignore[union-attr]
    assert find_checksum(text, "e.img") is find_checksum(text, "e.img", of_one_file=True) is None
    assert find_checksum(f"{digest}\n", "e.img", of_one_file=True) == ("sha256", digest, None)
    assert find_checksum(f"{digest}\n", "e.img") is None
    clearsigned = (
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n- -x\nbody\n-----BEGIN PGP SIGNATURE-----\nz\n"
        "-----END PGP SIGNATURE-----\n"
    )
    assert signed_text(f"before\n{clearsigned}after") == "-x\nbody"
    assert signed_text("plain") == "plain"
