"""What a profile says for systems that take no seed: Ignition's configuration, and credentials for systemd."""

from __future__ import annotations

import json

from sevlaunch.profile.named_files import read_named

# systemd's CREDENTIAL_SIZE_MAX is larger, but all of them have to fit into the tables of SMBIOS, 64 KiB.
MOST_CREDENTIAL_BYTES = 32 << 10
# systemd's src/shared/creds-util.h, CREDENTIALS_TOTAL_SIZE_MAX: its PID 1 passes over what is more.
MOST_INITRD_BYTES = 1 << 20
# Where Ignition looks for its configuration under QEMU: its internal/providers/qemu.
IGNITION = "opt/com.coreos/config"
# QEMU keeps it in memory, and nobody writes one by hand that is larger.
_MOST_IGNITION_BYTES = 16 << 20


def read_credential(value: object) -> bytes:
    """What a credential holds: the content of a file, or the text in ``{text: ...}``. No message says what it is.

    :raise ValueError: when it is neither, or too large for SMBIOS.
    """
    return _credential(value, MOST_CREDENTIAL_BYTES, "SMBIOS has room for")


def read_initrd_credential(value: object) -> bytes:
    """As :func:`read_credential`, for a credential in the initrd.

    :raise ValueError: when it is neither, or more than systemd takes.
    """
    return _credential(value, MOST_INITRD_BYTES, "systemd takes")


def _credential(value: object, most: int, which: str) -> bytes:
    if isinstance(value, dict):
        text = value.get("text")
        if set(value) != {"text"} or not isinstance(text, str):
            raise ValueError("wanted the path of a file, or {text: ...}, found another mapping")
        content = text.encode()
    else:
        content = _content(value, most + 1, "the path of a file, or {text: ...}")[0]
    if len(content) > most:
        raise ValueError(f"wanted at most {most >> 10} KiB, which {which}, found more")
    return content


def read_ignition(value: object) -> str:
    """The path of a file with Ignition's JSON.

    :raise ValueError: when it is none, such as Butane, which people write and Ignition does not read.
    """
    what = "the path of an Ignition configuration"
    content, path = _content(value, _MOST_IGNITION_BYTES, what)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"wanted {what}: {path} is no JSON; if it is Butane: butane {path} > FILE.ign") from error
    if not isinstance(found, dict) or not isinstance(found.get("ignition"), dict):
        raise ValueError(f"wanted {what}: {path} has no section called ignition")
    return path


def _content(value: object, limit: int, what: str) -> tuple[bytes, str]:
    """The beginning of the file that ``value`` names, and its path."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"wanted {what}; found {type(value).__name__}")
    return read_named(value, limit, what)
