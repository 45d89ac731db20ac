"""How times grow with the number of guests, memory, vCPUs and the length of a profile: none worse than linear."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from benchmarks.commands import command
from benchmarks.many import launched_many, plans
from benchmarks.measuring import PLAIN, Candidate, Line, Result, Setting, Verdict, alternate, sevlaunch, summarise
from benchmarks.starts import launched
from sevlaunch.host.probe import probe_host
from sevlaunch.plan import resolve
from sevlaunch.profile.loader import load

GUESTS = (1, 2, 5, 10, 20, 50)
MEBIBYTES = (256, 512, 1024, 2048, 4096, 8192)
VCPUS = (1, 8, 32, 128)
LINES = (10, 100, 500, 2000)


def growth(setting: Setting) -> Result:
    """Four curves."""
    host = probe_host(setting.qemu)
    image = f"firmware={{image: {setting.firmware}}}"
    guests = {number: partial(launched_many, plans(setting, number)) for number in GUESTS}
    memory = {}
    for size in MEBIBYTES:
        overrides = (f"memory={{size: {size}M, lock: true}}", "accel=tcg", "networks=[]", image)
        memory[size] = partial(launched, resolve(load(PLAIN, overrides=overrides), host))
    words = ("owner", "digest", "--type", "sev-snp", "--firmware", setting.firmware, "--vcpus")
    vcpus = {number: partial(command, sevlaunch(*words, str(number))) for number in VCPUS}
    with tempfile.TemporaryDirectory(prefix="sevlaunch-bench-") as folder:
        profiles = {lines: partial(command, sevlaunch("check", _profile(lines, Path(folder)))) for lines in LINES}
        found = [
            _curve("guests", guests, 3),
            _curve("MiB locked", memory, 3),
            _curve("vCPUs of a digest", vcpus, setting.rounds),
            _curve("lines of a profile", profiles, setting.rounds),
        ]
    return Result(tuple(line for lines, _ in found for line in lines), tuple(verdict for _, verdict in found))


def _curve(what: str, points: Mapping[int, Candidate], rounds: int) -> tuple[tuple[Line, ...], Verdict]:
    """The points, and whether the time grows no faster than the number does.

    That is whether the last step costs at most as much for each unit as the average before it; half as much again is
    left for noise.
    """
    lines = summarise(alternate({f"{number} {what}": candidate for number, candidate in points.items()}, rounds), {})
    numbers = list(points)
    first, before, last = lines[0].median, lines[-2].median, lines[-1].median
    usual = (before - first) / (numbers[-2] - numbers[0])
    step = (last - before) / (numbers[-1] - numbers[-2])
    # Where nothing grows, both are noise around nothing.
    met = step <= 1.5 * usual or (last - first) < 0.1 * first
    return lines, Verdict(
        f"{what}: no worse than linear", f"{usual:.3f} ms for each at first, {step:.3f} at the end", met
    )


def _profile(lines: int, folder: Path) -> Path:
    """A profile of about so many lines: disks, each in four."""
    file = folder / f"{lines}.yaml"
    disk = "  - path: disk{0}.raw\n    format: raw\n    serial: S{0}\n    read_only: true\n"
    file.write_text("memory: 512M\ndisks:\n" + "".join(disk.format(number) for number in range(lines // 4)))
    return file
