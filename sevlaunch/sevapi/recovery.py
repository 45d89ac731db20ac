"""Recovering the public key of a signature on P-384: SEC 1 version 2.0, section 4.1.6.

Nothing here is secret, so that it need not take the same time for all numbers.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

# SEC 2 version 2.0, section 2.5.1, "secp384r1": the field's prime, the curve's coefficients, the order of its points.
PRIME = (1 << 384) - (1 << 128) - (1 << 96) + (1 << 32) - 1
A = PRIME - 3
B = 0xB3312FA7E23EE7E4988E056BE3F82D19181D9C6EFE8141120314088F5013875AC656398D8A2ED19D2A85C8EDD3EC2AEF
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973


class Point(NamedTuple):
    """A point of the curve, other than the one at infinity."""

    x: int
    y: int


BASE = Point(
    0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
)


def recover_keys(message: bytes, r: int, s: int) -> list[Point]:
    """The public keys under which ``r``, ``s`` is an ECDSA signature of ``message`` with SHA-384; sorted by x, then y.

    Of the points whose x is congruent to ``r``, only those with that very x are looked at: the others are as good as
    never there.

    :raise ValueError: when no point has that x.
    """
    square = (pow(r, 3, PRIME) + A * r + B) % PRIME
    # The prime is 3 modulo 4.
    y = pow(square, (PRIME + 1) // 4, PRIME)
    if not 0 < r < ORDER or not 0 < s < ORDER or y * y % PRIME != square:
        raise ValueError("no key has such a signature")
    inverse = pow(r, -1, ORDER)
    hashed = int.from_bytes(hashlib.sha384(message).digest(), "big")
    by_hash = multiply(-hashed * inverse % ORDER, BASE)
    of_signature = multiply(s * inverse % ORDER, Point(r, y))
    found = [_add(by_hash, of_signature), _add(by_hash, of_signature and _negative(of_signature))]
    return sorted(key for key in found if key is not None)


def multiply(number: int, point: Point) -> Point | None:
    """``number`` times the point; None: the point at infinity."""
    # Jacobian coordinates: x / z**2, y / z**3. To divide at each step takes ten times as long.
    x, y, z = 1, 1, 0
    for bit in f"{number:b}":
        x, y, z = _doubled(x, y, z)
        if bit == "1":
            x, y, z = _plus(x, y, z, point)
    if not z:
        return None
    inverse = pow(z, -1, PRIME)
    return Point(x * inverse**2 % PRIME, y * inverse**3 % PRIME)


def _doubled(x: int, y: int, z: int) -> tuple[int, int, int]:
    squared = y * y % PRIME
    middle = 4 * x * squared % PRIME
    slope = 3 * (x - z * z) * (x + z * z) % PRIME
    new = (slope * slope - 2 * middle) % PRIME
    return new, (slope * (middle - new) - 8 * squared * squared) % PRIME, 2 * y * z % PRIME


def _plus(x: int, y: int, z: int, point: Point) -> tuple[int, int, int]:
    if not z:
        return point.x, point.y, 1
    across = (point.x * z * z - x) % PRIME
    up = (point.y * z * z * z - y) % PRIME
    if not across:
        return (1, 1, 0) if up else _doubled(x, y, z)
    square = across * across % PRIME
    cube, middle = square * across % PRIME, x * square % PRIME
    new = (up * up - cube - 2 * middle) % PRIME
    return new, (up * (middle - new) - y * cube) % PRIME, z * across % PRIME


def _negative(point: Point) -> Point:
    return Point(point.x, -point.y % PRIME)


def _add(one: Point | None, other: Point | None) -> Point | None:
    if one is None or other is None:
        return one or other
    if one.x != other.x:
        slope = (other.y - one.y) * pow(other.x - one.x, -1, PRIME)
    elif one.y == other.y and one.y:
        slope = (3 * one.x * one.x + A) * pow(2 * one.y, -1, PRIME)
    else:
        return None
    x = (slope * slope - one.x - other.x) % PRIME
    return Point(x, (slope * (one.x - x) - one.y) % PRIME)
