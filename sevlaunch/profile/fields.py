"""Field types of a profile: paths, sizes, policies, binary values and port forwards, with their checks."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from sevlaunch.documents import whole
from sevlaunch.image_reference import is_name, is_url
from sevlaunch.opening import open_regular
from sevlaunch.profile.policy import SEV_POLICY, SNP_POLICY, PolicyFormat, parse_policy
from sevlaunch.sevapi.constants import CERTIFICATE_BYTES, SESSION_BYTES
from sevlaunch.text import check_guest_name
from sevlaunch.units import format_ranges, parse_ranges, parse_size

# VIRTIO_BLK_ID_BYTES; QEMU cuts the rest of a disk's serial number off silently.
MAX_SERIAL_BYTES = 20
# The binary values of security, by key. Sizes: sev-guest in target/i386/sev.c of QEMU; SNP's in qapi/qom.json,
# SevSnpGuestProperties.
BLOB_BYTES = {
    "dh_cert": CERTIFICATE_BYTES,
    "session": SESSION_BYTES,
    "guest_visible_workarounds": 16,
    "id_block": 96,
    "id_auth": 4096,
    "host_data": 32,
}


# What QEMU's -drive takes for the protocol of a source rather than a file's name: bdrv_parse_filename() in its block/.
_REMOTE = (
    r"(nbd|nbd\+unix|rbd|https?|ftps?|iscsi|iser|ssh|sftp|nfs|gluster(?:\+\w+)?|file|fat|json|blkdebug|blkverify|nvme):"
)


class Parser(Struct, frozen=True):
    """On a field's type: how its value is made of what stands in the profile. ``read`` raises ValueError.

    ``names_file``: the value is the path of a file, a folder, a device or a program.
    """

    read: Callable[[object], Any]
    names_file: bool = False


class Placeholder(Struct, frozen=True):
    """On a field's type: what stands in for a value that is missing or wrong, while the rest is looked at."""

    value: Any


def matching(pattern: str, description: str | None = None, *, wanted: str) -> Meta:
    """On a text's type: all of it has to match the regular expression ``pattern``; ``wanted`` says so in words.

    No pattern of msgspec's: that is compiled for each command, whatever the profile has.
    """
    return Meta(
        description=description,
        extra={"pattern": pattern, "wanted": wanted},
        extra_json_schema={"pattern": whole(pattern)},
    )


def absolute_path(value: object) -> str:
    """The path that a profile names, relative to it.

    :raise ValueError: when it is no text.
    """
    if not isinstance(value, str) or not value:
        raise ValueError(f"wanted a path, found {value!r}")
    path = Path(value)
    if path.is_absolute():
        return str(path)
    # Without symbolic links in the folder, a leading ".." is its parent.
    base = Path(getattr(value, "base", Path.cwd())).resolve()
    parts = list(path.parts)
    while parts and parts[0] == "..":
        base = base.parent
        parts.pop(0)
    return str(base.joinpath(*parts))


def _image_path(value: object) -> str:
    if isinstance(value, str) and (scheme := re.match(_REMOTE, value)):
        raise ValueError(
            f"wanted a file or block device of this host, found a {scheme[1]} source: sevlaunch opens no images over "
            "the network; fetch it (image: URL, with sha256), or attach it as a block device (nbd-client, rbd map, "
            "iscsiadm)"
        )
    return absolute_path(value)


def _image_reference(value: object) -> str:
    """A path as it is absolute; a URL, or a name of the catalogue, as it stands."""
    if isinstance(value, str) and (is_url(value) or is_name(value)):
        return str(value)
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        raise ValueError(f"wanted a URL of a file, without a password, found {value!r}")
    return _image_path(value)


def _size(value: object) -> int:
    size = parse_size(value)
    if size <= 0:
        raise ValueError(f"wanted a size above 0, found {value!r}")
    return size


def _policy(policy_format: PolicyFormat) -> tuple[Parser, Meta]:
    names = [*policy_format.bits]
    schema = {
        "type": ["integer", "string", "array"],
        "minimum": 0,
        "items": {"anyOf": [{"enum": names}, {"pattern": rf"^{policy_format.version}-\d+\.\d+$"}]},
    }
    return (
        Parser(lambda value: parse_policy(value, policy_format)),
        Meta(
            description=f"{policy_format.title} guest policy: a number, or names of bits",
            extra_json_schema=schema,
        ),
    )


# The largest blob is an id_auth of 4096 bytes; in base64 and hexadecimal it has line ends, too.
_MOST_BLOB_TEXT = 1 << 16
_HEXADECIMAL = r"(?:0[xX])?([0-9a-fA-F]+)"
# What nobody calls a file, and what is a digest or a copied blob rather.
_LONG_TEXT = 64
_MANY_DIGITS = 16
_WITH_NAME = r"(?s)[0-9a-fA-F]{16,}\s+\*?\S.*"


def read_blob(value: object, size: int, what: str) -> bytes:
    """``size`` bytes given inline as hexadecimal or base64, or as the path of a file that holds them so, or raw.

    They can't be mistaken for one another: only text that decodes to exactly ``size`` bytes counts, and hexadecimal
    digits read as base64 are other bytes in number.

    :raise ValueError: with what was wanted and what was found.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError(f"wanted {what}, {size} bytes, found a number: write hexadecimal digits in quotes")
    if not isinstance(value, str) or not value:
        raise ValueError(f"wanted {what}, {size} bytes as hexadecimal, base64 or the path of a file, found {value!r}")
    content, found = _decoded(value.encode("utf-8", "surrogateescape"), size)
    if content is not None:
        return content
    path = Path(absolute_path(value))
    try:
        with open_regular(path) as stream:
            content = stream.read(_MOST_BLOB_TEXT)
    except (OSError, ValueError) as error:
        # ValueError: a path with NUL.
        digits = re.fullmatch(_HEXADECIMAL, value)
        if found and (len(value) > _LONG_TEXT or value.endswith("=") or (digits and len(digits[1]) >= _MANY_DIGITS)):
            raise ValueError(f"wanted {what} of {size} bytes, found {found}") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"wanted {what}: can't read the file {path}: {reason}") from error
    if len(content) == size:
        return content
    decoded, found = _decoded(content, size)
    if decoded is not None:
        return decoded
    more = "or more " if len(content) == _MOST_BLOB_TEXT else ""
    found = found or f"{len(content)} bytes {more}".rstrip()
    raise ValueError(f"wanted {what} of {size} bytes, raw, in hexadecimal or base64, found {found} in {path}")


def inline_blob(value: str, size: int) -> bytes | None:
    """The ``size`` bytes that stand in the profile itself, or None: then the value is the path of a file."""
    return _decoded(value.encode("utf-8", "surrogateescape"), size)[0]


def _decoded(text: bytes, size: int) -> tuple[bytes | None, str]:
    """The ``size`` bytes that hexadecimal or base64 text stands for, or None and what it is instead, if anything."""
    compact = b"".join(text.split())
    if not compact:
        return None, ""
    digits = re.fullmatch(_HEXADECIMAL, compact.decode("ascii", "replace"))
    if digits:
        if len(digits[1]) == 2 * size:
            return bytes.fromhex(digits[1]), ""
        base64_too = decode_base64(compact)
        if base64_too is not None and len(base64_too) == size:
            return base64_too, ""
        half = "" if len(digits[1]) % 2 == 0 else " and a half"
        found = f"{len(digits[1]) // 2}{half} bytes in hexadecimal"
        return None, found if base64_too is None else f"base64 of {len(base64_too)} bytes or {found}"
    if re.fullmatch(_WITH_NAME, text.decode("utf-8", "replace").strip()):
        return None, "a digest with the name of a file behind it, as sha256sum prints it: give the digits alone"
    content = decode_base64(text)
    if content is None:
        return None, ""
    return (content, "") if len(content) == size else (None, f"base64 of {len(content)} bytes")


def decode_base64(text: bytes) -> bytes | None:
    """The bytes that base64 text stands for, blanks and line ends left out; None if it is none."""
    try:
        return base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None


def _blob(key: str, what: str) -> tuple[Parser, Meta]:
    size = BLOB_BYTES[key]
    return (
        Parser(lambda value: read_blob(value, size, what)),
        Meta(description=f"{what}: {size} bytes as hexadecimal or base64, or the path of a file"),
    )


# Not \d, which takes the digits of all scripts: QEMU gets the text as it is.
_PORT = r"([0-9]{1,5})"
_FORWARD = rf"(tcp|udp):(?:([0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}):)?{_PORT}:{_PORT}"


def _forward(value: object) -> str:
    match = re.fullmatch(_FORWARD, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"wanted tcp|udp:[IPV4:]HOSTPORT:GUESTPORT such as tcp:127.0.0.1:2222:22, found {value!r}")
    if match[2] and any(int(part) > 255 for part in match[2].split(".")):
        raise ValueError(f"wanted an IPv4 address, found {match[2]!r}")
    for port, lowest in ((match[3], 0), (match[4], 1)):
        if not lowest <= int(port) < 65536:
            also = ", or 0 for one that is free" if lowest == 0 else ""
            raise ValueError(f"wanted a port from 1 to 65535{also}, found {port}")
    return match[0]


def split_forward(forward: str) -> tuple[str, str, int, int]:
    """Protocol, host address (may be empty), host port (0: a free one) and guest port of a checked forward."""
    match = re.fullmatch(_FORWARD, forward)
    if match is None:
        raise ValueError(f"no port forward: {forward!r}")
    return match[1], match[2] or "", int(match[3]), int(match[4])


def _auto_or_number(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and re.fullmatch(r"0[xX][0-9a-fA-F]+|\d+", value):
        return int(value, 0) if "x" in value.lower() else int(value)
    raise ValueError(f"wanted 'auto' or a number, found {value!r}")


def auto_or_number(minimum: int, maximum: int) -> tuple[Parser, Meta]:
    """For a field that is ``auto`` or a whole number in the given range."""

    def read(value: object) -> object:
        number = _auto_or_number(value)
        if isinstance(number, int) and not minimum <= number <= maximum:
            raise ValueError(f"wanted a number from {minimum} to {maximum}, found {number}")
        return number

    return Parser(read), Meta(extra_json_schema={"minimum": minimum, "maximum": maximum})


# Before it, QEMU's mktimegm() gives what it takes for a mistake.
_EPOCH = 1970
_FEATURE = r"[A-Za-z][A-Za-z0-9._-]*=[A-Za-z0-9._-]+"
_FLAG = r"([+-]?)([A-Za-z][A-Za-z0-9._-]*)"


def _feature(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_FEATURE, value):
        return str(value)
    flag = re.fullmatch(_FLAG, value) if isinstance(value, str) else None
    if flag:
        # As on QEMU's command line and in libvirt's XML.
        raise ValueError(f"write {value!r} as {flag[2]}={'off' if flag[1] == '-' else 'on'}")
    raise ValueError(f"wanted a CPU property such as host-phys-bits=on, found {value!r}")


def _clock_base(value: object) -> str:
    if value in ("utc", "localtime"):
        return str(value)
    # QEMU's system/rtc.c, configure_rtc_base_datetime(): either of these forms.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2})?", value):
        with suppress(ValueError):
            if datetime.fromisoformat(value).year >= _EPOCH:
                return str(value)
    raise ValueError(f"wanted utc, localtime, or a time from {_EPOCH} on such as 2026-01-31T12:00:00, found {value!r}")


def _numbers(value: object) -> str:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    try:
        numbers = parse_ranges(str(text)) if isinstance(text, str) else []
    except ValueError:
        numbers = []
    if not numbers:
        raise ValueError(f"wanted numbers and ranges such as 0-3,8, found {value!r}")
    return format_ranges(set(numbers))


def _disk_serial(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"wanted text, found {value!r}")
    if len(value.encode()) > MAX_SERIAL_BYTES:
        raise ValueError(f"wanted at most {MAX_SERIAL_BYTES} bytes, found {len(value.encode())}")
    return str(value)


def _ip_address(value: object) -> str:
    # Few profiles have one.
    import ipaddress

    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError as error:
        raise ValueError(f"wanted an IP address such as 127.0.0.1 or ::1, found {value!r}") from error


_MAC = r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}"


def _mac(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(_MAC, value) or int(value[:2], 16) & 1:
        raise ValueError(f"wanted a unicast MAC address such as 52:54:00:12:34:56, found {value!r}")
    return value.lower()


_SIZE_SCHEMA = {
    "type": ["integer", "string"],
    "minimum": 1,
    "pattern": r"^\s*\d+(\.\d+)?\s*([KMGTkmgt]([iI]?[bB])?|[bB])?\s*$",
}

_NUMBERS_SCHEMA = {
    "type": ["integer", "string"],
    "minimum": 0,
    "pattern": r"^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$",
}

Size = Annotated[int, Parser(_size), Meta(extra_json_schema=_SIZE_SCHEMA)]
ImagePath = Annotated[
    str,
    Parser(_image_path, names_file=True),
    Placeholder("/"),
    Meta(min_length=1, description="a path; relative to the profile"),
]
ImageReference = Annotated[
    str,
    Parser(_image_reference, names_file=True),
    Placeholder("/"),
    Meta(min_length=1, description="a path, relative to the profile; a name of the catalogue, or a URL"),
]
AbsolutePath = Annotated[
    str,
    Parser(absolute_path, names_file=True),
    Placeholder("/"),
    Meta(min_length=1, description="a path; relative to the profile"),
]
Forward = Annotated[str, Parser(_forward), Placeholder("tcp:1:1"), Meta(extra_json_schema={"pattern": whole(_FORWARD)})]
CpuFeature = Annotated[str, Parser(_feature), Placeholder("x=y"), Meta(extra_json_schema={"pattern": whole(_FEATURE)})]
# Numbers of CPUs or NUMA nodes, in the form that units.parse_ranges reads.
Numbers = Annotated[str, Parser(_numbers), Placeholder("0"), Meta(extra_json_schema=_NUMBERS_SCHEMA)]
ClockBase = Annotated[
    str,
    Parser(_clock_base),
    Placeholder("utc"),
    Meta(extra_json_schema={"pattern": r"^(utc|localtime|[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2})?)$"}),
]
Name = Annotated[str, Parser(check_guest_name), Placeholder("guest")]
DiskSerial = Annotated[str, Parser(_disk_serial), Meta(min_length=1)]
Mac = Annotated[str, Parser(_mac)]
IpAddress = Annotated[str, Parser(_ip_address)]
SevPolicyValue = Annotated[int, *_policy(SEV_POLICY)]
SnpPolicyValue = Annotated[int, *_policy(SNP_POLICY)]

DhCert = Annotated[bytes, *_blob("dh_cert", "the owner's Diffie-Hellman certificate")]
Session = Annotated[bytes, *_blob("session", "the owner's session")]
GuestVisibleWorkarounds = Annotated[bytes, *_blob("guest_visible_workarounds", "guest-visible workarounds")]
IdBlock = Annotated[bytes, *_blob("id_block", "the id block")]
IdAuth = Annotated[bytes, *_blob("id_auth", "the id authentication structure")]
HostData = Annotated[bytes, *_blob("host_data", "host data")]
