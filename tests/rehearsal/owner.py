"""A guest owner for tests: a session for the emulated platform, and libvirt's validator as an independent judge."""

from __future__ import annotations

import base64
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from sevlaunch.rehearsal.platform import Platform, user_platform
from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage
from sevlaunch.sevapi.session import TransportKeys, agree, wrap
from tests import needs
from tests.conftest import PROFILES, Command, qemu_binary_of

VALIDATOR = Path("/usr/bin/virt-qemu-sev-validate")


@dataclass(frozen=True)
class Session:
    """What an owner keeps, and the two files that the host gets."""

    tik: Path
    tek: Path
    overrides: tuple[str, ...]


@cache
def _shared_keys() -> bytes:
    return Platform.generate().to_json()


def share_platform(command: Command) -> None:
    """Give the command an emulated platform that other tests use, too: making the keys takes seconds."""
    file = command.state / ".rehearsal/platform.json"
    if not file.exists():
        file.parent.mkdir(parents=True)
        file.write_bytes(_shared_keys())


def make_session(command: Command, policy: int) -> Session:
    """A session for this user's emulated platform."""
    share_platform(command)
    platform = user_platform(command.state)
    owner = ec.generate_private_key(ec.SECP384R1())
    keys = TransportKeys(tek=bytes(range(16)), tik=bytes(range(16, 32)))
    godh = Certificate.of_key(owner.public_key(), Usage.PDH, Algorithm.ECDH_SHA256).to_bytes()
    blob = wrap(keys, policy, agree(owner, platform.pdh.public_key()), b"nonce".ljust(16), b"iv".ljust(16))
    files = {"godh.b64": base64.b64encode(godh), "session.b64": base64.b64encode(blob)}
    files |= {"tik.bin": keys.tik, "tek.bin": keys.tek}
    for name, content in files.items():
        (command.base / name).write_bytes(content)
    overrides = (
        "--set",
        f"security.dh_cert={command.base / 'godh.b64'}",
        "--set",
        f"security.session={command.base / 'session.b64'}",
    )
    return Session(command.base / "tik.bin", command.base / "tek.bin", overrides)


def rehearsed(
    command: Command, kind: str, version: str, session: Session | None, *overrides: str, vcpus: int = 1
) -> dict[str, Any]:
    """The evidence of a paused, rehearsed launch."""
    share_platform(command)
    result = command(
        "up",
        PROFILES / f"{kind}.yaml",
        "--rehearse",
        "--paused",
        "--format",
        "json",
        "--set",
        f"qemu.binary={qemu_binary_of(version)}",
        "--set",
        f"firmware.image={needs.amdsev_image()}",
        "--set",
        f"cpus={vcpus}",
        *(session.overrides if session else ()),
        *overrides,
    )
    assert "REHEARSAL: memory is NOT encrypted" in result.stderr
    found: dict[str, Any] = result.json
    return found


def validate(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run libvirt's own virt-qemu-sev-validate, unmodified, with the system's Python."""
    needs.file_of("libvirt-clients-qemu", str(VALIDATOR))
    return subprocess.run(
        ["/usr/bin/python3", str(VALIDATOR), "--insecure", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
