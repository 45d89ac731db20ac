"""What several tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.owner.images import ovmf
from tests.owner.launches import write_keys


@pytest.fixture
def owner(base: Path) -> Path:
    """A folder with the owner's files."""
    (base / "ovmf.fd").write_bytes(ovmf())
    (base / "sev.yaml").write_text("cpus: 1\nfirmware: {image: ovmf.fd}\nsecurity: {type: sev, policy: 0x33}\n")
    write_keys(base)
    return base
