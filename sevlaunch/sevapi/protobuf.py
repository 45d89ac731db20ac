"""Protocol Buffers' wire format, as far as a message of numbers, bytes and messages needs it.

https://protobuf.dev/programming-guides/encoding: fields of a tag (number << 3 | type) and a value; of type 0, a number
in groups of 7 bits, and of type 2, a length and as many bytes.
"""

from __future__ import annotations

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
_FIXED = {_I64: 8, _I32: 4}
_MAX_SHIFT = 63


def parse_message(content: bytes) -> dict[int, list[int | bytes]]:
    """The values of each field of a message, by its number.

    :raise ValueError: when it is none.
    """
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(content):
        tag, at = _number(content, at)
        field, kind = tag >> 3, tag & 7
        value: int | bytes
        if kind == _VARINT:
            value, at = _number(content, at)
        elif kind == _LEN:
            length, at = _number(content, at)
            value, at = _bytes(content, at, length)
        elif kind in _FIXED:
            value, at = _bytes(content, at, _FIXED[kind])
        else:
            raise ValueError(f"a field of a message has the type {kind}")
        if not field:
            raise ValueError("a field of a message has the number 0")
        found.setdefault(field, []).append(value)
    return found


def _bytes(content: bytes, at: int, length: int) -> tuple[bytes, int]:
    if length > len(content) - at:
        raise ValueError("a message is cut short")
    return content[at : at + length], at + length


def _number(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, _MAX_SHIFT + 1, 7):
        if at >= len(content):
            raise ValueError("a message is cut short")
        byte, at = content[at], at + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    else:
        raise ValueError("a number of a message does not end")
    if value >> 64:
        raise ValueError("a number of a message has more than 64 bits")
    return value, at
