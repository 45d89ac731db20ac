"""A secret wrapped by libvirt's validator reaches the guest's memory, decrypted; an altered one does not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from uuid import UUID

import pytest

from sevlaunch.sevapi.ovmf import SECRET_AREA, table_of
from tests import needs
from tests.conftest import Command
from tests.rehearsal.owner import make_session, rehearsed, validate
from tests.rehearsal.test_launch import claims

GUID = "736869e5-84f0-4973-92ec-06879ce3da0b"
TABLE = UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
PASSPHRASE = b"correct horse battery staple"


@pytest.fixture(autouse=True)
def _kvm() -> None:
    needs.rehearsal()


def secret_area() -> tuple[int, int]:
    """Address and size of the secret area that the firmware's table names."""
    data = table_of(needs.amdsev_image().read_bytes())[SECRET_AREA]
    return int.from_bytes(data[:4], "little"), int.from_bytes(data[4:8], "little")


def guest_memory(command: Command, name: str, address: int, size: int) -> bytes:
    """Guest memory, read through QEMU's own monitor: a rehearsal does not encrypt it."""
    file = command.base / "memory"
    file.unlink(missing_ok=True)
    arguments = {"val": address, "size": size, "filename": str(file)}
    command("qmp", name, "pmemsave", json.dumps(arguments))
    return file.read_bytes()


def wrapped(command: Command, version: str) -> tuple[bytes, bytes]:
    """Header and payload for a guest that was just launched, made by libvirt's validator."""
    session = make_session(command, 0x33)
    evidence = rehearsed(command, "sev", version, session)
    secret = command.base / "passphrase"
    secret.write_bytes(PASSPHRASE)
    header, payload = command.base / "header.b64", command.base / "payload.b64"
    done = validate(
        [
            *claims(evidence, session),
            "--inject-secret",
            f"{GUID}:{secret}",
            "--secret-header",
            str(header),
            "--secret-payload",
            str(payload),
        ]
    )
    assert done.returncode == 0, done.stderr
    return base64.b64decode(header.read_text()), base64.b64decode(payload.read_text())


def inject(command: Command, header: bytes, payload: bytes, *, check: int = 0) -> str:
    """Inject through QMP; what the command printed to stderr."""
    arguments = {
        "packet-header": base64.b64encode(header).decode(),
        "secret": base64.b64encode(payload).decode(),
    }
    return command("qmp", "sev", "sev-inject-launch-secret", json.dumps(arguments), check=check).stderr


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1"])
def test_the_secret_is_found_decrypted_where_the_firmware_says(version: str, sevlaunch: Command) -> None:
    header, payload = wrapped(sevlaunch, version)
    address, size = secret_area()
    assert size >= len(payload)
    inject(sevlaunch, header, payload)
    found = guest_memory(sevlaunch, "sev", address, size)
    assert found.startswith(TABLE.bytes_le)
    assert UUID(GUID).bytes_le in found
    assert PASSPHRASE in found
    sevlaunch("down", "sev", "--now")


def test_one_flipped_bit_is_refused_and_nothing_is_written(sevlaunch: Command) -> None:
    header, payload = wrapped(sevlaunch, "10.0")
    address, size = secret_area()
    before = guest_memory(sevlaunch, "sev", address, size)
    for altered_header, altered_payload in (
        (header[:-1] + bytes([header[-1] ^ 1]), payload),
        (header, payload[:-1] + bytes([payload[-1] ^ 1])),
    ):
        stderr = inject(sevlaunch, altered_header, altered_payload, check=5)
        assert "BAD_MEASUREMENT (11)" in stderr
        assert guest_memory(sevlaunch, "sev", address, size) == before
    inject(sevlaunch, header, payload)
    sevlaunch("down", "sev", "--now")


def test_a_secret_after_the_launch_is_refused(sevlaunch: Command) -> None:
    header, payload = wrapped(sevlaunch, "10.0")
    sevlaunch("resume", "sev")
    assert inject(sevlaunch, header, payload, check=5)
    sevlaunch("down", "sev", "--now")


def test_the_image_of_the_test_is_the_one_with_a_secret_area() -> None:
    assert Path(needs.amdsev_image()).exists()
    address, size = secret_area()
    assert (address % 4096, size > 0) == (0, True)
