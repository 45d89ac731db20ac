"""ID blocks: the same as sev-snp-measure makes, and readable keys only."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from sevsnpmeasure.id_block import snp_calc_id_block

from sevlaunch.errors import UsageError
from sevlaunch.owner.id_block import anonymous_id_block, read_private_key, sign_id_block, write_id_block
from sevlaunch.sevapi.id_block import IdAuthentication, IdBlock
from tests.conftest import Command
from tests.owner.pki import rsa_key

DIGEST = bytes(range(48))


def key_file(
    folder: Path,
    name: str,
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None,
    *,
    encoding: serialization.Encoding = serialization.Encoding.PEM,
    passphrase: bytes = b"",
) -> Path:
    """A private key in a file."""
    key = key or ec.generate_private_key(ec.SECP384R1())
    protection = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    file = folder / name
    file.touch(0o600)
    file.write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, protection))
    return file


def test_the_block_is_that_of_sev_snp_measure_and_the_signatures_verify(tmp_path: Path) -> None:
    id_file, author_file = key_file(tmp_path, "id.pem"), key_file(tmp_path, "author.pem")
    theirs = snp_calc_id_block(DIGEST, str(id_file), str(author_file))
    signed = sign_id_block(
        IdBlock(DIGEST, 0x30000), read_private_key(id_file, "ID key"), read_private_key(author_file, "author key")
    )
    fields = dict(re.findall(r"(id-block|id-auth|id_key_hash|author_key)[=:]\s*([A-Za-z0-9+/=]+)", theirs))
    decoded = {name: base64.b64decode(text) for name, text in fields.items()}
    assert signed.block.to_bytes() == decoded["id-block"]
    assert (signed.id_key_digest, signed.author_key_digest) == (decoded["id_key_hash"], decoded["author_key"])
    # Their signatures differ each time; all else is the same, and theirs verify here, too.
    other = IdAuthentication.from_bytes(decoded["id-auth"])
    mine = signed.authentication
    assert (other.id_key, other.author_key) == (mine.id_key, mine.author_key)
    for one in (mine, other):
        assert one.signs(signed.block.to_bytes())
        assert one.author_signs_id_key()
        assert not one.signs(IdBlock(DIGEST, 0x30001).to_bytes())


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = key_file(tmp_path, "id.pem")
    for mode in (0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(UsageError, match=f"others may read {file}") as caught:
            read_private_key(file, "ID key")
        assert caught.value.hint == f"chmod 600 {file}"
    file.chmod(0o600)
    read_private_key(file, "ID key")


def test_a_signature_is_always_the_same_where_openssl_can_do_that(tmp_path: Path) -> None:
    key = read_private_key(key_file(tmp_path, "id.pem"), "ID key")
    block = IdBlock(DIGEST, 0x30000)
    try:
        deterministic = bool(ec.ECDSA(hashes.SHA384(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        deterministic = False
    assert (sign_id_block(block, key, key) == sign_id_block(block, key, key)) is deterministic


def test_an_anonymous_block_says_what_contrasts_says_and_its_key_signs_nothing_else(tmp_path: Path) -> None:
    signed = anonymous_id_block(DIGEST, 0x30000)
    assert (signed.block.family_id, signed.block.image_id) == (b"\1" + bytes(15), b"\2" + bytes(15))
    assert (signed.block.guest_svn, signed.block.version) == (2, 1)
    # r = 2 and s = 1, little-endian; an ID key, and no author.
    content = signed.authentication.to_bytes()
    assert content[:8] == b"\1\0\0\0" + bytes(4)
    assert content[64 : 64 + 512] == b"\2".ljust(72, b"\0") + b"\1".ljust(440, b"\0")
    assert content[0x240:0x244] == b"\2\0\0\0"
    assert content[0x680:] == bytes(4096 - 0x680)
    assert signed.authentication.signs(signed.block.to_bytes())
    assert not signed.author_key_digest
    for other in (anonymous_id_block(DIGEST, 0xB0000), anonymous_id_block(bytes(48), 0x30000)):
        assert not signed.authentication.signs(other.block.to_bytes())
        assert other.id_key_digest != signed.id_key_digest
    assert anonymous_id_block(DIGEST, 0x30000) == signed


def test_files_are_both_there_or_none(tmp_path: Path) -> None:
    signed = sign_id_block(IdBlock(DIGEST, 0x30000), ec.generate_private_key(ec.SECP384R1()), None)
    assert not signed.authentication.author_signs_id_key()
    (tmp_path / "x_id_auth.b64").write_text("old")
    with pytest.raises(UsageError, match="exists already"):
        write_id_block(signed, str(tmp_path / "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["x_id_auth.b64"]
    files = write_id_block(signed, str(tmp_path / "y"))
    assert base64.b64decode(files["id_block"].read_bytes()) == signed.block.to_bytes()


def test_keys_are_read_in_pem_and_der(tmp_path: Path) -> None:
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        assert read_private_key(key_file(tmp_path, "key", encoding=encoding), "key").key_size == 384


def test_what_is_no_key_on_p384_is_refused_and_never_quoted(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.touch(0o600)
    garbage.write_bytes(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0IHNlY3JldA==\n-----END PRIVATE KEY-----\n")
    for file, message in (
        (garbage, "no private key"),
        (key_file(tmp_path, "protected", passphrase=b"word"), "passphrase"),
        (key_file(tmp_path, "p256", ec.generate_private_key(ec.SECP256R1())), "not on P-384"),
        (key_file(tmp_path, "rsa", rsa_key("ask", 2048)), "not on P-384"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            read_private_key(file, "key")
        assert "c2Vj" not in str(caught.value)


def test_the_command_signs_by_nobody_when_asked_to(tmp_path: Path, sevlaunch: Command) -> None:
    given = ("owner", "id-block", "--digest", DIGEST.hex(), "--policy", "0x30000", "--anonymous")
    result = sevlaunch(*given, "--out", tmp_path / "a", "--format", "json").json
    block, authentication = (Path(result["files"][name]) for name in ("id_block", "id_auth"))
    wanted = anonymous_id_block(DIGEST, 0x30000)
    assert base64.b64decode(block.read_bytes()) == wanted.block.to_bytes()
    assert base64.b64decode(authentication.read_bytes()) == wanted.authentication.to_bytes()
    assert (result["id_key_digest"], result["author_key_digest"]) == (wanted.id_key_digest.hex(), "")
    for more in (("--id-key", key_file(tmp_path, "id")), ("--guest-svn", "1"), ("--image-id", "22" * 16)):
        sevlaunch(*given, *more, "--out", tmp_path / "b", check=2)
    sevlaunch(*given[:-1], "--out", tmp_path / "b", check=2)


def test_the_command_writes_both_files_and_prints_the_digests(tmp_path: Path, sevlaunch: Command) -> None:
    keys = ("--id-key", key_file(tmp_path, "id.pem"), "--author-key", key_file(tmp_path, "author.pem"))
    given = ("owner", "id-block", "--digest", DIGEST.hex(), "--policy", "smt", *keys, "--guest-svn", "7")
    names = ("--family-id", "11" * 16, "--image-id", "22" * 16)
    result = sevlaunch(*given, *names, "--out", tmp_path / "g", "--format", "json").json
    block = IdBlock.from_bytes(base64.b64decode(Path(result["files"]["id_block"]).read_bytes()))
    assert block == IdBlock(DIGEST, 0x30000, b"\x11" * 16, b"\x22" * 16, 7)
    assert len(result["id_key_digest"]) == len(result["author_key_digest"]) == 96
    sevlaunch(*given, *names, "--out", tmp_path / "g", check=2)
    text = sevlaunch(*given, "--out", tmp_path / "h").stdout
    assert result["id_key_digest"] in text
    assert "author_key_enabled: true" in text


@pytest.mark.parametrize(
    "wrong",
    [
        ("--digest", "12"),
        ("--digest", "x" * 96),
        ("--policy", "0x10000"),
        ("--policy", "what"),
        ("--family-id", "12"),
        ("--guest-svn", "-1"),
        ("--id-key", "/missing"),
    ],
)
def test_wrong_values_are_wrong_usage(wrong: tuple[str, str], tmp_path: Path, sevlaunch: Command) -> None:
    given = {"--digest": DIGEST.hex(), "--policy": "0x30000", "--id-key": str(key_file(tmp_path, "id"))}
    given[wrong[0]] = wrong[1]
    arguments = [part for pair in given.items() for part in pair]
    result = sevlaunch("owner", "id-block", *arguments, "--out", tmp_path / "g", check=2)
    assert "Traceback" not in result.stderr
    assert list(tmp_path.glob("g*")) == []
