"""Known answers: sevctl's public test numbers, and certificates from real Naples hardware."""

from __future__ import annotations

import base64
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage
from sevlaunch.sevapi.measurement import measure
from sevlaunch.sevapi.secret import secret_mac, unwrap_secret
from sevlaunch.sevapi.session import TransportKeys, agree, kdf, unwrap, wrap
from sevlaunch.sevapi.status import FirmwareError, Status, explain_status
from tests.published import vector


def decoded(text: str) -> bytes:
    """Bytes of base64."""
    return base64.b64decode(text)


def test_the_key_derivation_gives_the_known_master_secret() -> None:
    assert kdf(bytes(16), "sev-master-secret", bytes(16)).hex() == "ab4d269fcc62bedb4511d56c386ce706"


def test_the_measurement_is_sevctls() -> None:
    mnonce = decoded("wxP6tRHCFrFQWxsuqZA8QA==")
    found = measure(
        bytes.fromhex("3569cf61a32a602b87185ac6e0f55913"),
        api_major=1,
        api_minor=40,
        build_id=40,
        policy=3,
        digest=decoded("xkvRAfyaSizgonxAjZIAkR8TmolUabBKQKb6KJCDDSM="),
        mnonce=mnonce,
    )
    assert found + mnonce == decoded("lswbxWxI9gckya16JQvdFtpYmNO4b+3inAPpqsgoBI7DE/q1EcIWsVBbGy6pkDxA")


SECRET_KEYS = TransportKeys(
    bytes.fromhex("52a869b79ab9c13bb6a92b0561619cb3"), bytes.fromhex("c6d5a9956133050912b24bbe5c372686")
)
SECRET_MEASURE = decoded("TLeA7607lZQntLjRY1/i+sbtdSZ+75zxpz4Px9hzpBLwItF5Q2o4prA++3ZZv9ZS")[:32]
SECRET_HEADER = decoded("AAAAAKxUdO1N0yx9mJ7FI9klWey8FSzeYQ4X8K71VzNKLU/KQsIsQxLjtbhaPUewqshX5Q==")
SECRET_PAYLOAD = decoded("0U3e5PcXv0UW+H4tSBFKOdCYfKE1+j38Bc2fuO16mYiyI+sWx7INfn+lgYj56GL12yyinDa+lVfCCwD/2w5cPA==")


def test_the_secret_of_sevctl_is_unwrapped() -> None:
    plain = unwrap_secret(SECRET_KEYS, SECRET_HEADER, SECRET_PAYLOAD, len(SECRET_PAYLOAD), SECRET_MEASURE)
    assert b"MY-LUKS-PASSPHRASE" in plain
    mac = secret_mac(SECRET_KEYS.tik, 0, SECRET_HEADER[4:20], len(SECRET_PAYLOAD), SECRET_PAYLOAD, SECRET_MEASURE)
    assert mac == SECRET_HEADER[20:]


def test_a_flipped_bit_of_header_payload_or_measure_is_a_bad_measurement() -> None:
    for header, payload, launch in (
        (flipped(SECRET_HEADER, 0), SECRET_PAYLOAD, SECRET_MEASURE),
        (flipped(SECRET_HEADER, 51), SECRET_PAYLOAD, SECRET_MEASURE),
        (SECRET_HEADER, flipped(SECRET_PAYLOAD, 7), SECRET_MEASURE),
        (SECRET_HEADER, SECRET_PAYLOAD, flipped(SECRET_MEASURE, 31)),
    ):
        with pytest.raises(FirmwareError) as caught:
            unwrap_secret(SECRET_KEYS, header, payload, len(payload), launch)
        assert caught.value.status is Status.BAD_MEASUREMENT


def test_a_secret_of_another_length_or_a_compressed_one_is_refused() -> None:
    size = len(SECRET_PAYLOAD)
    compressed = secret_mac(SECRET_KEYS.tik, 1, bytes(16), size, SECRET_PAYLOAD, SECRET_MEASURE)
    for header, length, status in (
        (SECRET_HEADER[:-1], size, Status.INVALID_LENGTH),
        (SECRET_HEADER + b"\0", size, Status.INVALID_LENGTH),
        (SECRET_HEADER, size - 16, Status.INVALID_LENGTH),
        (b"\1\0\0\0" + bytes(16) + compressed, size, Status.UNSUPPORTED),
    ):
        with pytest.raises(FirmwareError) as caught:
            unwrap_secret(SECRET_KEYS, header, SECRET_PAYLOAD, length, SECRET_MEASURE)
        assert caught.value.status is status


def flipped(content: bytes, index: int) -> bytes:
    """The same with one bit changed."""
    return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]


def test_a_session_is_unwrapped_by_the_one_it_was_made_for() -> None:
    owner, platform = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    keys = TransportKeys(b"e" * 16, b"i" * 16)
    blob = wrap(keys, 0x33, agree(owner, platform.public_key()), b"n" * 16, b"v" * 16)
    z = agree(platform, owner.public_key())
    assert unwrap(blob, 0x33, z) == keys
    assert "eeee" not in repr(keys)
    other = agree(ec.generate_private_key(ec.SECP384R1()), owner.public_key())
    for session, policy, secret, status in (
        (blob, 0x37, z, Status.BAD_MEASUREMENT),
        (blob, 0x33, other, Status.BAD_MEASUREMENT),
        (flipped(blob, 20), 0x33, z, Status.BAD_MEASUREMENT),
        (flipped(blob, 127), 0x33, z, Status.BAD_MEASUREMENT),
        (blob[:-1], 0x33, z, Status.INVALID_LENGTH),
    ):
        with pytest.raises(FirmwareError) as caught:
            unwrap(session, policy, secret)
        assert caught.value.status is status


def test_a_session_is_made_as_amd_writes_it() -> None:
    """AMD 55766, "Session Data" and "Key Derivation", once more and by the letter."""
    z, nonce, iv = bytes(range(48)), b"n" * 16, b"v" * 16

    def derived(key: bytes, label: bytes) -> bytes:
        return hmac.digest(key, b"\1\0\0\0" + label + b"\x80\0\0\0", "sha256")[:16]

    master = derived(z, b"sev-master-secret\0" + nonce)
    kek, kik = derived(master, b"sev-kek\0"), derived(master, b"sev-kik\0")
    blob = wrap(TransportKeys(tek=b"e" * 16, tik=b"i" * 16), 0x01020304, z, nonce, iv)
    wrapped = Cipher(algorithms.AES(kek), modes.CTR(iv)).encryptor().update(b"e" * 16 + b"i" * 16)
    assert blob == b"".join(
        (
            *(nonce, wrapped, iv),
            hmac.digest(kik, wrapped, "sha256"),
            hmac.digest(b"i" * 16, b"\4\3\2\1", "sha256"),
        )
    )


@pytest.mark.parametrize("name", ["pdh", "pek", "oca", "cek"])
def test_naples_certificates_are_read_and_written_back_the_same(name: str) -> None:
    content = vector(f"naples-{name}.cert")
    certificate = Certificate.from_bytes(content)
    assert certificate.usage == Usage[name.upper()]
    assert certificate.to_bytes() == content


def test_the_naples_chain_verifies_and_an_altered_one_does_not() -> None:
    chain = {name: Certificate.from_bytes(vector(f"naples-{name}.cert")) for name in ("pdh", "pek", "oca", "cek")}
    assert chain["pdh"].is_signed_by(chain["pek"])
    assert chain["pek"].is_signed_by(chain["oca"])
    assert chain["pek"].is_signed_by(chain["cek"])
    altered = Certificate.from_bytes(flipped(chain["pdh"].to_bytes(), 5))
    assert not altered.is_signed_by(chain["pek"])


def test_a_certificate_of_our_own_is_signed_and_verified() -> None:
    signer, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    issuer = Certificate.of_key(signer.public_key(), Usage.PEK, Algorithm.ECDSA_SHA256)
    made = Certificate.of_key(key.public_key(), Usage.PDH, Algorithm.ECDH_SHA256).signed_by((signer, Usage.PEK))
    read = Certificate.from_bytes(made.to_bytes())
    assert read == made
    assert read.is_signed_by(issuer)
    assert read.public_key.public_numbers() == key.public_key().public_numbers()


def test_what_is_no_certificate_gets_the_processors_answer() -> None:
    right = Certificate(Usage.PDH, Algorithm.ECDH_SHA256, bytes(1028)).to_bytes()
    assert Certificate.from_bytes(right).to_bytes() == right
    for content, status in (
        (b"", Status.INVALID_LENGTH),
        (bytes(2083), Status.INVALID_LENGTH),
        (bytes(2084), Status.INVALID_CERTIFICATE),
        (bytes([2]) + right[1:], Status.INVALID_CERTIFICATE),
        (right[:6] + b"\1" + right[7:], Status.INVALID_CERTIFICATE),
        (right + b"\0", Status.INVALID_LENGTH),
    ):
        with pytest.raises(FirmwareError) as caught:
            Certificate.from_bytes(content)
        assert caught.value.status is status


def test_every_code_is_explained_and_an_unknown_one_is_said() -> None:
    for status in Status:
        assert status.name in explain_status(status)
    assert "BAD_MEASUREMENT (11): a MAC or digest does not match" in explain_status(11)
    assert "4711" in explain_status(4711)
