"""Writes the passages of the documents that a program can write: exit codes, examples of output, figures.

A passage stands between two comments, the first of which names it. With --check nothing is written.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

from bench import ON_REQUEST, SECTIONS
from benchmarks.document import document
from benchmarks.measuring import Result
from msgspec import convert
from msgspec.structs import replace

from sevlaunch.cli.output import Format
from sevlaunch.cli.status_text import show_guest
from sevlaunch.errors import EXIT_INTERRUPTED, HostError, ProfileError, SevlaunchError
from sevlaunch.evidence import Evidence, FirmwareInfo, QemuInfo, SevInfo
from sevlaunch.flows.plans import plan_guest
from sevlaunch.guest_type import GuestType
from sevlaunch.host.facts import CpuFacts, Device, KvmFacts
from sevlaunch.host.model import Host
from sevlaunch.profile.loader import load, loads

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PERFORMANCE = "docs/performance.json"
PASSAGE = re.compile(r"(<!-- scripts/passages writes this: (.+?) -->\n)(.*?)(<!-- end -->\n)", re.DOTALL)

EXIT_CODES = {
    0: "done",
    1: "the command ran and the answer is no: `check` found mistakes, the name is taken, the guest has ended",
    2: "wrong usage",
    3: "the profile is refused",
    4: "this host can't run it; everything that is missing is listed",
    5: "QEMU failed; its last lines are in the error",
    6: "timed out",
    7: "evidence, or an attestation report, can't be read",
    8: "this can't be verified, whoever asks",
    9: "the answer would prove nothing: a rehearsal, or verification on the very host",
    10: "there is no guest of that name",
    EXIT_INTERRUPTED: "interrupted; nothing is left behind",
}
MISTAKES = """\
name: my-guest
memory:
  lock: true
  size: 4X
memroy: 2G
security:
  type: sev
  policy: domian
disks:
  - {path: data.raw}
  - {path: d.raw, bus: ide}
"""


def exit_codes() -> Iterator[str]:
    """The table of exit codes; each one that an error has needs a meaning, and each meaning an error."""
    used = {error.exit_code for error in errors_below(SevlaunchError)} | {0, EXIT_INTERRUPTED}
    if used != EXIT_CODES.keys():
        sys.exit(f"passages: EXIT_CODES has {sorted(EXIT_CODES)}, the errors {sorted(used)}")
    yield from ("| code | meaning |", "| --- | --- |")
    yield from (f"| {code} | {meaning} |" for code, meaning in sorted(EXIT_CODES.items()))


def errors_below(error: type[SevlaunchError]) -> Iterator[type[SevlaunchError]]:
    """An error and all that are kinds of it."""
    yield error
    for kind in error.__subclasses__():
        yield from errors_below(kind)


def started() -> Iterator[str]:
    """What `up` prints on an EPYC host."""
    evidence = Evidence(
        name="sles15-sev-guest",
        state="paused",
        pid=4711,
        profile="profiles/sles15-sev.yaml",
        command=[],
        rehearsal=False,
        qemu=QemuInfo("/usr/bin/qemu-system-x86_64", "10.0.2"),
        firmware=FirmwareInfo(
            "/usr/share/qemu/ovmf-x86_64-ms-4m-code.bin",
            "b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c",
        ),
        vcpus=1,
        sev=SevInfo(GuestType.SEV, True, "launch-secret", 0x33, 1, 51, 3),
        measurement="lswbxWxI9gckya16JQvdFtpYmNO4b+3inAPpqsgoBI7DE/q1EcIWsVBbGy6pkDxA",
    )
    yield "$ sevlaunch up profiles/sles15-sev.yaml --paused           # on an EPYC host"
    with redirect_stdout(io.StringIO()) as printed:
        show_guest(evidence, Format.TEXT)
    yield from printed.getvalue().splitlines()


def refused() -> Iterator[str]:
    """What `up` says on a laptop with an Intel processor."""
    yield "$ sevlaunch up profiles/sev.yaml                           # on a laptop"
    milan = Host.load(ROOT / "tests/hosts/milan-qemu-10.0.json")
    cpu = CpuFacts(vendor="GenuineIntel", name="Intel Core i7-1260P", family=6, model=154, stepping=3)
    kvm = KvmFacts(module="kvm_intel", device=milan.kvm.device, sev_device=Device(path="/dev/sev"))
    try:
        plan_guest(load(ROOT / "profiles/sev.yaml"), replace(milan, cpu=cpu, kvm=kvm))
    except HostError as error:
        yield from f"sevlaunch: {error}".splitlines()


def mistakes() -> Iterator[str]:
    """What `check` says of a profile with four mistakes."""
    try:
        loads(MISTAKES, file="my-guest.yaml")
    except ProfileError as error:
        yield from str(error).splitlines()


def ways_to_lock() -> Iterator[str]:
    """What `scripts/lock --help` lists."""
    done = subprocess.run([ROOT / "scripts/lock", "--help"], capture_output=True, text=True, check=True)
    yield from (line.strip() for line in done.stdout.splitlines() if line.startswith("  scripts/lock"))


def figures(section: str) -> Iterator[str]:
    """The tables of a section of the benchmark."""
    return document(section, convert(json.loads((ROOT / PERFORMANCE).read_text())[section], Result))


def fenced(lines: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
    """The lines as a block of text."""

    def block() -> Iterator[str]:
        yield "```text"
        yield from lines()
        yield "```"

    return block


PASSAGES: dict[str, Callable[[], Iterator[str]]] = {
    "exit codes": exit_codes,
    "a launch": fenced(started),
    "a refusal": fenced(refused),
    "mistakes": fenced(mistakes),
    "ways to lock": fenced(ways_to_lock),
    **{f"figures of {section}": partial(figures, section) for section in (*SECTIONS, *ON_REQUEST)},
}


def renewed(text: str) -> str:
    """A document with its passages as they have to be.

    :raises KeyError: nobody writes such a passage.
    """

    def passage(found: re.Match[str]) -> str:
        written = "".join(f"{line}\n" for line in PASSAGES[found[2]]())
        return f"{found[1]}{written}{found[4]}"

    return PASSAGE.sub(passage, text)


def main() -> int:
    """Renew, or with --check compare; 1 when a passage is not as it has to be."""
    parser = argparse.ArgumentParser(prog="passages", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a passage is old")
    options = parser.parse_args()
    old = []
    for file in DOCUMENTS:
        text = file.read_text()
        new = renewed(text)
        if new == text:
            continue
        old.append(file)
        print(f"{file.relative_to(ROOT)}: {'has old passages' if options.check else 'renewed'}")
        if not options.check:
            file.write_text(new)
    return 1 if options.check and old else 0


if __name__ == "__main__":
    sys.exit(main())
