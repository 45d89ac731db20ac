"""How times grow with the number of guests, memory, vCPUs and the length of a profile: none worse than linear.

QEMU's own time, where it is part of a curve, stands beside it.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from benchmarks.commands import command
from benchmarks.many import bare_many, launched_many, plans
from benchmarks.measuring import (
    MEBIBYTE,
    PLAIN,
    Candidate,
    Line,
    Result,
    Setting,
    Verdict,
    alternate,
    sevlaunch,
    summarise,
)
from benchmarks.memory import fits, with_memory
from benchmarks.starts import bare, launched
from sevlaunch.host.model import Host
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load

GUESTS = (1, 2, 5, 10, 20, 50)
MEBIBYTES = (256, 512, 1024, 2048, 4096, 8192)
VCPUS = (1, 8, 32, 128)
LINES = (10, 100, 500, 2000)
# What is measured for a number, and a bare QEMU beside it where there is one.
Points = dict[int, tuple[Candidate, ...]]


def growth(setting: Setting) -> Result:
    """Four curves."""
    host = Host.probe(setting.qemu)
    image = f"firmware={{image: {setting.firmware}}}"
    guests: Points = {}
    for number in GUESTS:
        wanted = plans(setting, number)
        guests[number] = (partial(launched_many, wanted), partial(bare_many, wanted))
    memory: Points = {}
    for size in MEBIBYTES:
        if not fits(size * MEBIBYTE, host):
            break
        overrides = (f"memory={{size: {size}M, lock: true}}", "accel=tcg", "networks=[]", image)
        plan = resolve(load(PLAIN, overrides=overrides), host)
        beforehand = partial(with_memory, size * MEBIBYTE)
        memory[size] = (partial(beforehand, partial(launched, plan)), partial(beforehand, partial(bare, plan)))
    words = ("owner", "digest", "--type", "sev-snp", "--firmware", setting.firmware, "--vcpus")
    vcpus: Points = {number: (partial(command, sevlaunch(*words, str(number))),) for number in VCPUS}
    with tempfile.TemporaryDirectory(prefix="sevlaunch-bench-") as folder:
        profiles: Points = {
            lines: (partial(command, sevlaunch("check", _profile(lines, Path(folder)))),) for lines in LINES
        }
        found = [
            _curve("guests", guests, 5),
            _curve("MiB locked", memory, 5),
            _curve("vCPUs of a digest", vcpus, setting.rounds),
            _curve("lines of a profile", profiles, setting.rounds),
        ]
    return Result(tuple(line for lines, _ in found for line in lines), tuple(verdict for _, verdict in found))


def _curve(what: str, points: Points, rounds: int) -> tuple[tuple[Line, ...], Verdict]:
    """The points, and whether the last one is where a straight line through those before it leads.

    Half as much again is left for noise; what grows with the square of the number is at twice as much, or more.
    """
    candidates: dict[str, Candidate] = {}
    for number, (ours, *floor) in points.items():
        candidates[f"{number} {what}"] = ours
        candidates |= {f"{number} {what}, bare": candidate for candidate in floor}
    lines = summarise(alternate(candidates, rounds), {})
    medians = {line.name: line.median for line in lines}
    (first, fastest), *_, (before, slower), (last, found) = ((number, medians[f"{number} {what}"]) for number in points)
    straight = slower + (slower - fastest) / (before - first) * (last - before)
    return lines, Verdict(
        f"{what}: no worse than linear",
        f"{found:.0f} ms for {last}, where a straight line leads to {straight:.0f}",
        found <= 1.5 * straight,
    )


def _profile(lines: int, folder: Path) -> Path:
    """A profile of about so many lines: disks, each in four."""
    file = folder / f"{lines}.yaml"
    disk = "  - path: disk{0}.raw\n    format: raw\n    serial: S{0}\n    read_only: true\n"
    file.write_text("memory: 512M\ndisks:\n" + "".join(disk.format(number) for number in range(lines // 4)))
    return file
