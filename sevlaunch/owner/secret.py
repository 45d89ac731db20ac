"""Secrets for a launch: which ones, whether they fit, and the packet that the host injects."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from msgspec import Struct

from sevlaunch.errors import InsecureUse, UnsupportedError, UsageError
from sevlaunch.files import decode_text, read_bounded
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.verify import LaunchVerdict
from sevlaunch.sevapi.secret import HEADER_BYTES, LUKS_PASSPHRASE, MAX_PAYLOAD_BYTES, secret_table, wrap_secret
from sevlaunch.sevapi.session import TransportKeys

# luks-key is virt-qemu-sev-validate's name for it.
ALIASES = {"luks": LUKS_PASSPHRASE, "luks-key": LUKS_PASSPHRASE}

IV_BYTES = 16
_BLOCK = 16


@dataclass(frozen=True, repr=False)
class Secret:
    """One secret. Never printed."""

    guid: UUID
    content: bytes


class Packet(Struct, frozen=True):
    """What the host gives to QEMU's sev-inject-launch-secret: the header of 52 bytes, and the encrypted table."""

    header: bytes
    payload: bytes


def read_secret(text: str) -> Secret:
    """The secret of ``GUID:FILE``, or ``ALIAS:FILE``; the file ``-`` is standard input.

    :raise UsageError: when it is none, or can't be read, or is too large for any table.
    """
    name, separator, file = text.partition(":")
    if not separator or not file:
        raise UsageError(f"--secret: wanted GUID:FILE, found {text!r}", hint=f"such as {LUKS_PASSPHRASE}:FILE")
    guid = ALIASES.get(name)
    if guid is None:
        try:
            guid = UUID(name)
        except ValueError as error:
            known = ", ".join(ALIASES)
            raise UsageError(
                f"--secret: {name!r} is neither a GUID nor one of the names for one ({known})",
                hint=f"such as {LUKS_PASSPHRASE}:FILE",
            ) from error
    return Secret(guid, read_bounded(Path(file), f"secret {name}", MAX_PAYLOAD_BYTES))


def check_injectable(claims: HostClaims) -> None:
    """Make sure that the launch in the evidence still takes a secret.

    :raise UnsupportedError: when it does not, or never did.
    """
    if not claims.sev.enabled or not claims.sev.type.takes_secret or not claims.measurement:
        raise UnsupportedError(
            f"{claims.name} is no SEV or SEV-ES guest with a measurement: no secret can be wrapped for it",
            hint="an SNP guest gets its secrets after it sent its report (`sevlaunch owner report`), over the network",
        )
    if claims.sev.state != "launch-secret":
        raise UnsupportedError(
            f"{claims.name} is past the launch (state {claims.sev.state}): a secret goes in before the guest runs",
            hint="start it anew with: sevlaunch up PROFILE --paused",
        )


def wrap_secrets(
    wanted: Sequence[Secret],
    keys: TransportKeys,
    claims: HostClaims,
    verdict: LaunchVerdict,
    *,
    firmware: Firmware | None = None,
) -> Packet:
    """The packet for the launch that ``verdict`` is about; for a verified one alone.

    :param keys: those of the launch's session.
    :param firmware: where it is at hand, to see that the secrets fit into its area.
    :raise InsecureUse: when the launch is not verified.
    :raise UnsupportedError: when it takes no secret, or not any more.
    :raise UsageError: as :func:`make_packet`.
    """
    if not verdict.verified:
        raise InsecureUse(
            f"the launch of {claims.name} is not verified: whoever made it would get the secret",
            hint="find out what differs: sevlaunch owner verify EVIDENCE",
        )
    check_injectable(claims)
    return make_packet(wanted, keys, claims.measure, firmware=firmware)


def make_packet(
    wanted: Sequence[Secret],
    keys: TransportKeys,
    measure: bytes,
    *,
    firmware: Firmware | None = None,
    iv: bytes = b"",
) -> Packet:
    """The packet for one launch.

    :param measure: MEASURE of the launch, 32 bytes.
    :param firmware: where it is at hand, to see that the secrets fit into its area.
    :param iv: 16 bytes, for tests; empty: random.
    :raise UsageError: when there is none, two have one GUID, or they don't fit.
    """
    if not wanted:
        raise UsageError("wanted a secret, found none", hint="--secret GUID:FILE")
    if len({secret.guid for secret in wanted}) < len(wanted):
        raise UsageError("two secrets have one GUID: the guest would find the first only", hint="give each its own")
    table = secret_table([(secret.guid, secret.content) for secret in wanted])
    if len(table) > MAX_PAYLOAD_BYTES:
        raise UsageError(
            f"the secrets need {len(table)} bytes, one launch takes {MAX_PAYLOAD_BYTES}", hint="leave some out"
        )
    if firmware is not None:
        _check_area(firmware, len(table))
    header, payload = wrap_secret(keys, table, measure, iv or secrets.token_bytes(IV_BYTES))
    return Packet(header, payload)


def _check_area(firmware: Firmware, size: int) -> None:
    area = firmware.secret_area
    if area is None:
        raise UsageError(
            f"{firmware.name} has no area for launch secrets", hint="use an image that has one (OVMF.amdsev.fd)"
        )
    if size > area[1]:
        raise UsageError(
            f"the secrets need {size} bytes, the area of {firmware.name} at {area[0]:#x} has {area[1]}",
            hint="leave some out",
        )


def read_packet(header: Path, payload: Path) -> Packet:
    """The packet in two files, each raw, in base64 or in hexadecimal.

    :raise UsageError: when they hold none.
    """
    packet = Packet(_read(header, "header"), _read(payload, "payload"))
    if len(packet.header) != HEADER_BYTES:
        raise UsageError(
            f"header: wanted {HEADER_BYTES} bytes, {header} has {len(packet.header)}",
            hint="are header and payload exchanged?",
        )
    if len(packet.payload) % _BLOCK or len(packet.payload) > MAX_PAYLOAD_BYTES:
        raise UsageError(
            f"payload: wanted a multiple of {_BLOCK} bytes, at most {MAX_PAYLOAD_BYTES}; {payload} has "
            f"{len(packet.payload)}",
            hint="is it cut short?",
        )
    return packet


def _read(file: Path, what: str) -> bytes:
    content = read_bounded(file, what, 3 * MAX_PAYLOAD_BYTES)
    # Ciphertext of 32 bytes and more never looks like text. Hexadecimal also reads as base64, and is then the shorter.
    return min(decode_text(content), key=len, default=content)
