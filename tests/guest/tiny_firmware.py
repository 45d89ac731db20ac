"""Firmware of some bytes each: a guest that does one thing from its first instruction on, without an operating system.

The processor begins in real mode at the reset vector, 16 bytes before the end of the image.
"""

from __future__ import annotations

from pathlib import Path

from tests.guest.support import with_qemu

_SIZE = 65536
_CODE = 0xF000
_RESET = 0xFFF0

# What a q35 machine does at its power button: QEMU's hw/acpi/core.c and hw/isa/lpc_ich9.c.
POWERS_OFF = bytes.fromhex(
    "66b840f80080 baf80c 66ef"  # PCI configuration of 00:1f.0, register 0x40: where the ACPI registers are
    "66b801060000 bafc0c 66ef"  # at port 0x600
    "66b844f80080 baf80c 66ef b080 bafc0c ee"  # register 0x44: enabled
    "b80001 ba0206 ef"  # PM1_EN: the power button
    "ba0006 ed f6c401 74f7"  # wait for its bit in PM1_STS
    "b80020 ba0406 ef f4"  # PM1_CNT: sleep type 0, which is off
)
# Lines of 8 hexadecimal digits, each one more than the last, to the first serial port as fast as it goes.
FLOODS = bytes.fromhex(
    "6631db"  # the number
    "6689de b90800"  # 8 digits
    "66c1c604 6689f0 240f 0430 3c3a 7202 0427 baf803 ee e2e9"
    "b00a ee 6643 6683fbff 75d8 f4"
)
# Some hundred million steps, which are a second or so.
LASTS = bytes.fromhex("66b900000010 6649 75fc")


def prints(text: bytes) -> bytes:
    """Something for the first serial port; what follows is executed then."""
    return b"".join(bytes((0xBA, 0xF8, 0x03, 0xB0, byte, 0xEE)) for byte in text)


def writes_to_port(port: int, value: int) -> bytes:
    """A byte for an I/O port, then nothing any more."""
    return bytes((0xBA, *port.to_bytes(2, "little"), 0xB0, value, 0xEE, 0xF4))


def options_for(folder: Path, binary: str, code: bytes, *extra_args: str) -> list[str]:
    """The options for a guest that runs ``code``, whose image is made in ``folder``."""
    jump = b"\xe9" + ((_CODE - _RESET - 3) & 0xFFFF).to_bytes(2, "little")
    image = bytearray(_SIZE)
    image[_CODE : _CODE + len(code)] = code
    image[_RESET : _RESET + len(jump)] = jump
    file = folder / "firmware.bin"
    file.write_bytes(image)
    arguments = ", ".join(extra_args)
    settings = (f"firmware={{image: {file}}}", f"qemu.extra_args=[{arguments}]", "accel=tcg", "memory=64M", "cpus=1")
    return [*with_qemu(binary), *(word for setting in settings for word in ("--set", setting))]
