"""`owner digest` beside the sev-snp-measure command, and beside nothing but the hashing of the same bytes."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks.commands import command
from benchmarks.imports import import_times
from benchmarks.measuring import (
    Candidate,
    Line,
    Result,
    Setting,
    Target,
    alternate,
    missed,
    peak_memory,
    sevlaunch,
    summarise,
)

VCPUS = 64
PAGE = 4096
MODES = {"sev": "sev", "sev-es": "seves", "sev-snp": "snp"}


@contextmanager
def hashed(firmware: Path, guest_type: str) -> Iterator[None]:
    """The bytes that a launch of the type measures, hashed as it does, and nothing else."""
    image = firmware.read_bytes()
    pages = bytes(PAGE * (VCPUS if guest_type != "sev" else 0))
    if guest_type == "sev-snp":
        for content in (image, pages):
            for start in range(0, len(content), PAGE):
                # SNP hashes a page, and then the 112 bytes of its PAGE_INFO.
                hashlib.sha384(hashlib.sha384(content[start : start + PAGE]).digest() + bytes(64)).digest()
    else:
        hashlib.sha256(image + pages).digest()
    yield


def digests(setting: Setting) -> Result:
    """SEV, SEV-ES with 64 vCPUs and SNP with 64 vCPUs."""
    lines: list[Line] = []
    notes: tuple[str, ...] = ()
    theirs_command = Path(sys.executable).with_name("sev-snp-measure")
    for guest_type, mode in MODES.items():
        vmsa = ["--vmsa", "init2"] if guest_type == "sev-es" else []
        cpu = ["--vcpus", str(VCPUS), "--cpu", "EPYC-v4"] if guest_type != "sev" else []
        ours = ["owner", "digest", "--type", guest_type, "--firmware", str(setting.firmware), *cpu, *vmsa]
        theirs: list[str | Path] = [
            theirs_command,
            "--mode",
            mode,
            f"--vcpus={VCPUS}",
            "--vcpu-type=EPYC-v4",
            "--ovmf",
            setting.firmware,
        ]
        names = (f"{guest_type}: sev-snp-measure", f"{guest_type}: owner digest", f"{guest_type}: hashing")
        words: dict[str, Sequence[str | Path]] = {names[0]: theirs, names[1]: sevlaunch(*ours)}
        candidates: dict[str, Candidate] = {name: partial(command, line) for name, line in words.items()}
        candidates[names[2]] = partial(hashed, setting.firmware, guest_type)
        targets = {names[1]: [Target(names[0], ratio=0.6)]}
        memory = {name: peak_memory(line) for name, line in words.items()}
        lines += summarise(alternate(candidates, setting.rounds), targets, memory)
        if missed(lines):
            # It is the same for all types.
            notes = (import_times(ours),)
    return Result(tuple(lines), notes=notes)
