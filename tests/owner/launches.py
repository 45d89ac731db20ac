"""Evidence of launches that never were: what a host would send, measured as the secure processor does."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from sevlaunch.owner.digest import Launch, launch_digest
from sevlaunch.owner.platform import PlatformNote
from sevlaunch.owner.roots import AMD_ROOTS
from sevlaunch.sevapi.measurement import measure

TIK, TEK = bytes(range(16, 32)), bytes(range(16))
MNONCE = b"a nonce, 16 long"
NAPLES = next(root for root, generation in AMD_ROOTS.items() if generation == "Naples")
POLICIES = {"sev": 0x33, "sev-es": 0x37}


class Host(Struct, frozen=True):
    """What a host launched, and what it says of it; ``said`` overrides fields of the evidence's sev part."""

    launch: Launch
    policy: int
    api: tuple[int, int] = (1, 51)
    build_id: int = 3
    tik: bytes = TIK
    qemu: str = "7.2.22"
    extra: tuple[str, ...] = ()
    said: dict[str, Any] = field(default_factory=dict)

    def evidence(self) -> dict[str, Any]:
        """The evidence."""
        value = measure(
            self.tik,
            api_major=self.api[0],
            api_minor=self.api[1],
            build_id=self.build_id,
            policy=self.policy,
            digest=launch_digest(self.launch),
            mnonce=MNONCE,
        )
        sev = {
            "type": self.launch.guest_type,
            "enabled": True,
            "state": "launch-secret",
            "policy": self.policy,
            "api_major": self.api[0],
            "api_minor": self.api[1],
            "build_id": self.build_id,
            "handle": 1,
        }
        return {
            "name": "guest",
            "state": "paused",
            "pid": 4711,
            "profile": "guest.yaml",
            "command": ["qemu-system-x86_64", "-object", "sev-guest,id=sev0,session-file=session.b64", *self.extra],
            "rehearsal": False,
            "qemu": {"binary": "/usr/bin/qemu-system-x86_64", "version": self.qemu},
            "firmware": {"path": "/ovmf.fd", "sha256": self.launch.firmware.sha256.hex()},
            "vcpus": self.launch.vcpus,
            "sev": {**sev, **self.said},
            "measurement": base64.b64encode(value + MNONCE).decode(),
        }

    def write(self, folder: Path) -> Path:
        """The evidence in a file."""
        file = folder / "evidence.json"
        file.write_text(json.dumps(self.evidence()))
        return file

    def with_launch(self, **changes: Any) -> Host:
        """The host after a change of what is launched."""
        return replace(self, launch=replace(self.launch, **changes))


def write_keys(folder: Path, *, root: str | None = NAPLES) -> tuple[Path, Path]:
    """TIK and TEK in files, and beside them the note of who vouched for the platform."""
    (folder / "platform.json").write_bytes(PlatformNote(root=root).sealed(TIK).to_bytes())
    (folder / "tik.bin").write_bytes(TIK)
    (folder / "tek.bin").write_bytes(TEK)
    return folder / "tik.bin", folder / "tek.bin"
