"""Recovered keys are those that verify; keys that signed are among them."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sevlaunch.sevapi.recovery import BASE, ORDER, PRIME, Point, multiply, recover_keys

P384 = ec.SECP384R1()


@pytest.mark.parametrize("number", [1, 2, 3, 5, 1 << 200, ORDER - 1, ORDER // 2])
def test_multiples_of_the_base_are_those_of_openssl(number: int) -> None:
    numbers = ec.derive_private_key(number, P384).public_key().public_numbers()
    assert multiply(number, BASE) == (numbers.x, numbers.y)


def test_the_order_of_the_base_is_the_curves() -> None:
    assert multiply(ORDER, BASE) is None
    assert multiply(ORDER + 1, BASE) == BASE
    assert multiply(ORDER - 1, BASE) == Point(BASE.x, PRIME - BASE.y)


@pytest.mark.parametrize("message", [b"", b"message", bytes(96)])
def test_the_key_that_signed_is_recovered(message: bytes) -> None:
    key = ec.generate_private_key(P384)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA384())))
    numbers = key.public_key().public_numbers()
    found = recover_keys(message, r, s)
    assert (numbers.x, numbers.y) in found
    assert found == sorted(found) and len(found) == 2


def test_both_keys_of_a_signature_that_nobody_made_verify() -> None:
    for message in (b"one", b"other"):
        for x, y in recover_keys(message, 2, 1):
            public = ec.EllipticCurvePublicNumbers(x, y, P384).public_key()
            public.verify(encode_dss_signature(2, 1), message, ec.ECDSA(hashes.SHA384()))


# No point of the curve has x = 5.
@pytest.mark.parametrize(("r", "s"), [(0, 1), (2, 0), (ORDER, 1), (2, ORDER), (5, 1)])
def test_what_is_no_signature_of_any_key_is_refused(r: int, s: int) -> None:
    with pytest.raises(ValueError, match="no key has such a signature"):
        recover_keys(b"message", r, s)
