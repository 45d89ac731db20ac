"""Published data that the tests take as it is: AMD's vectors, libvirt's test data. None of it is part of the project.

scripts/test-tools brings it out of Debian's packages; a folder named shared beside the project, or beside a folder
above it, may have it, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.needs import ROOT, tool

SHARED = next((folder / "shared" for folder in ROOT.parents if (folder / "shared/vectors").is_dir()), None)


def places(in_tools: str, in_shared: str | None) -> list[Path]:
    """Where a file or folder is: what scripts/test-tools brought, then what lies beside the project."""
    here = [tool(in_tools), SHARED / in_shared if SHARED and in_shared else None]
    return [path for path in here if path and path.exists()]


def vector(name: str) -> bytes:
    """A certificate or report of a real processor; skips by name where it is nowhere, and is the same everywhere."""
    found = {path: path.read_bytes() for path in places(f"amd-vectors/{name}", f"vectors/{name}")}
    if not found:
        pytest.skip(f"{name} of a real processor is not here: scripts/test-tools vectors brings it")
    assert len(set(found.values())) == 1, f"these differ: {', '.join(map(str, found))}"
    return next(iter(found.values()))


def reports(folder: str) -> Path:
    """A published report with its certificates; skips by name where it is nowhere."""
    if SHARED is None or not (SHARED / "vectors/reports" / folder).is_dir():
        pytest.skip(f"the published report {folder} is not here: a folder shared beside the project may have it")
    return SHARED / "vectors/reports" / folder


def libvirts(in_tools: str, in_shared: str | None = None) -> list[Path]:
    """The places of a part of libvirt's test data; skips by name where it is nowhere."""
    found = places(f"libvirt/{in_tools}", in_shared and f"libvirt-cases/{in_shared}")
    if not found:
        pytest.skip(f"libvirt's {in_tools} is not here: scripts/test-tools libvirt brings it")
    return found


def libvirts_domains() -> list[Path]:
    """All of libvirt's own domains for x86_64."""
    (folder,) = libvirts("qemuxmlconfdata")
    return [file for file in sorted(folder.glob("*.xml")) if b"x86_64" in file.read_bytes()]


def libvirts_case(name: str) -> tuple[Path, Path]:
    """A domain about SEV or virtio, and the command line that libvirt expects."""
    folder = libvirts("qemuxmlconfdata", ".")[0]
    arguments = [folder / f"{name}.x86_64-latest{kind}.args" for kind in ("+amdsev", "")]
    return folder / f"{name}.xml", next(file for file in arguments if file.exists())


def libvirts_descriptors() -> Path:
    """The root of libvirt's tree of firmware descriptors."""
    return libvirts("qemufirmwaredata", "firmware-descriptors")[0]


def sev_capabilities() -> dict[str, Any]:
    """What QEMU on a real EPYC answered to query-sev-capabilities, the same wherever it was found."""
    files = libvirts("qemucapabilitiesdata/caps_10.0.0_x86_64+amdsev.replies", "query-sev-capabilities.json")
    replies = [reply_of(file.read_text()) for file in files]
    assert all(reply == replies[0] for reply in replies), f"these differ: {', '.join(map(str, files))}"
    return replies[0]


def reply_of(text: str) -> dict[str, Any]:
    """The reply to query-sev-capabilities in a recording, which may have commands and other replies."""
    documents = list(json_documents(text))
    after_command = [
        reply for command, reply in pairwise(documents) if command.get("execute") == "query-sev-capabilities"
    ]
    return {"return": (after_command or documents)[0]["return"]}


def json_documents(text: str) -> Iterator[dict[str, Any]]:
    """JSON documents that stand behind each other."""
    decoder, rest = json.JSONDecoder(), text.lstrip()
    while rest:
        document, end = decoder.raw_decode(rest)
        yield document
        rest = rest[end:].lstrip()
