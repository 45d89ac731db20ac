"""The benchmark: candidates take turns in one run, so that whatever else the machine does hits all of them alike."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from sevlaunch.cli.output import table
from sevlaunch.guest.launch import launch
from sevlaunch.host.probe import probe_host
from sevlaunch.plan import Plan, argv, monitor_on, resolve
from sevlaunch.plan.option import rule
from sevlaunch.profile.loader import load

# scripts/test-tools brings it.
AMDSEV = Path.home() / ".cache/sevlaunch/tools/ovmf-amdsev/OVMF.amdsev.fd"
PROFILES = Path(__file__).resolve().parent.parent / "profiles"


@dataclass(frozen=True)
class Target:
    """What a candidate may take: at most ``most_more`` milliseconds more than ``base``."""

    base: str
    most_more: float


@dataclass(frozen=True)
class Line:
    """A line of the table; times in milliseconds."""

    name: str
    median: float
    spread: float
    ratio: float
    more: float
    target: str
    met: bool | None


def alternate(candidates: Mapping[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each candidate, round by round; one round before that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            if number:
                times[name].append((time.perf_counter() - start) * 1000)
    return times


def summarise(times: Mapping[str, list[float]], targets: Mapping[str, Target]) -> list[Line]:
    """Medians, quartile distance, and the targets; the first candidate is what ratios are to."""
    base = statistics.median(next(iter(times.values())))
    lines = []
    for name, values in times.items():
        median = statistics.median(values)
        low, _, high = statistics.quantiles(values, n=4)
        target = targets.get(name)
        more = median - statistics.median(times[target.base]) if target else median - base
        text = f"at most {target.most_more:g} ms more" if target else ""
        lines.append(
            Line(name, median, high - low, median / base, more, text, more <= target.most_more if target else None)
        )
    return lines


def print_lines(title: str, lines: list[Line]) -> None:
    """The table."""
    rows = [
        (
            line.name,
            f"{line.median:.1f}",
            f"{line.spread:.1f}",
            f"{line.ratio:.2f}",
            f"{line.more:+.1f}",
            f"{'pass' if line.met else 'FAIL'}: {line.target}" if line.target else "",
        )
        for line in lines
    ]
    print(f"{title}\n{table(('', 'ms', 'spread', 'ratio', 'more', 'target'), rows)}\n")


def bare(plan: Plan) -> None:
    """QEMU from a minimal script: started, asked for its status, ended."""
    ours, theirs = socket.socketpair()
    channel = ["-chardev", f"socket,id=launcher,fd={theirs.fileno()}"]
    command = [*argv(plan), *channel, *monitor_on("launcher", plan.monitor_object, rule("bench")).argv]
    plan.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL) as process, ours:
        theirs.close()
        with ours.makefile("rwb") as stream:
            stream.readline()
            for request in (b'{"execute":"qmp_capabilities"}\n', b'{"execute":"query-status"}\n'):
                stream.write(request)
                stream.flush()
                stream.readline()
        process.kill()


def launched(plan: Plan) -> None:
    """The same through sevlaunch's library, up to the evidence."""

    async def run() -> None:
        async with launch(plan, paused=True):
            pass

    asyncio.run(run())


def rehearsal(qemu: str, firmware: Path, rounds: int) -> list[Line]:
    """What a rehearsed launch costs beside a bare start of the same guest without SEV."""
    host = probe_host(qemu)
    overrides = ("memory.size=512M", "memory.lock=true", "cpu.model=EPYC-v4", f"firmware.image={firmware}")
    plain = resolve(load(PROFILES / "sev.yaml", overrides=(*overrides, "security=none", "accel=kvm")), host)
    candidates: dict[str, Callable[[], None]] = {
        "bare QEMU": partial(bare, plain),
        "launch, no SEV": partial(launched, plain),
    }
    targets = {}
    for kind in ("sev", "sev-es", "sev-snp"):
        if kind == "sev-snp" and host.qemu and "sev-snp-guest" not in host.qemu.objects:
            print(f"sev-snp is left out: QEMU {host.qemu.version} has no sev-snp-guest (try --qemu)", file=sys.stderr)
            continue
        plan = resolve(load(PROFILES / f"{kind}.yaml", overrides=overrides), host, rehearse=True)
        candidates[f"rehearsed {kind}"] = partial(launched, plan)
        targets[f"rehearsed {kind}"] = Target("bare QEMU", 60)
    return summarise(alternate(candidates, rounds), targets)


SECTIONS = {"rehearsal": rehearsal}


def main() -> int:
    """Run the sections; 0 when every target is met, 1 when not."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="what to measure; default: everything")
    parser.add_argument("--qemu", default="auto", help="the QEMU binary")
    parser.add_argument("--firmware", type=Path, default=AMDSEV, help="an OVMF image for SEV-ES and SNP")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sevlaunch-bench-") as base:
        for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
            folder = Path(base, variable)
            folder.mkdir(mode=0o700)
            os.environ[variable] = str(folder)
        results = {}
        for name in options.sections or SECTIONS:
            results[name] = SECTIONS[name](options.qemu, options.firmware, options.rounds)
            print_lines(name, results[name])
    if options.json:
        document = {name: [asdict(line) for line in lines] for name, lines in results.items()}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if all(line.met is not False for lines in results.values() for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
