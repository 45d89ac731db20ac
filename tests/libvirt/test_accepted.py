"""What import makes of libvirt's own domains for q35, and calls startable, a real QEMU takes.

What a domain names on its host is replaced: files by empty ones, interfaces by the network of QEMU itself, memory that
is locked or huge by ordinary memory, KVM by TCG. Everything else is as imported.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.host.facts import Folders
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from sevlaunch.libvirt.domain import Imported
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import LoadedProfile
from tests import needs
from tests.conftest import HOSTS, VERSIONS, qemu_binary_of
from tests.libvirt.support import imported
from tests.published import libvirts_domains

pytestmark = pytest.mark.long

# Of so many domains, one is started; all of them in long runs.
EVERY = 10
# TCG emulates less than the models have; a machine type can be of an age that QEMU tells of.
HARMLESS = (
    "TCG doesn't support",
    "deprecated",
    "will be removed",
    "This family of AMD CPU",
    "try enabling topoext",
    "recommended cpus",
    # Of SPICE, when QEMU ends.
    "VD_INTERFACE_REMOVING unsupported",
)
# On the network that takes the place of another one.
OF_EVERY_NETWORK = ("mac", "model", "iommu_platform")


def startable(version: str) -> Iterator[tuple[Path, Imported]]:
    """The domains for q35 that import calls startable with a QEMU."""
    machines = list(qemu_facts(qemu_binary_of(version)).machines)
    for file in libvirts_domains():
        content = file.read_bytes()
        try:
            result = imported(content, machines)
        except ProfileError:
            continue
        if result.works and b"q35" in content:
            yield file, result


def host_with(version: str, base: Path) -> Host:
    """The recorded Milan with a QEMU that is here."""
    folders = Folders(runtime=str(base / "run"), state=str(base / "state"))
    host = Host.load(HOSTS / "milan-qemu-10.0.json")
    return replace(host, qemu=qemu_facts(qemu_binary_of(version)), folders=folders)


def with_what_is_here(data: dict[str, Any], base: Path) -> dict[str, Any]:
    """The profile with other files, networks and memory in the place of its host's."""
    code, store = needs.ovmf()
    for index, disk in enumerate(data.get("disks", ())):
        disk["path"] = str(image(base / f"disk{index}", disk.get("format", "raw")))
        if str(disk.get("key_file", "")):
            disk["key_file"] = str(empty(base / "key"))
    for key in ("kernel", "initrd"):
        if key in data.get("boot", {}):
            data["boot"][key] = str(empty(base / key))
    data["firmware"] = {"code": str(code), "vars": str(store)}
    networks = data.get("networks", ())
    data["networks"] = [
        {"type": "user", **{key: network[key] for key in OF_EVERY_NETWORK if key in network}} for network in networks
    ]
    memory = {key: value for key, value in data.get("memory", {}).items() if key == "size"}
    cpu = {key: value for key, value in data.get("cpu", {}).items() if key != "pin"}
    cpu["model"] = "max" if cpu.get("model") in ("host", None, "auto") else cpu["model"]
    rest = {key: value for key, value in data.items() if key not in ("security", "vsock", "shares", "tpm")}
    for node in rest.get("numa", ()):
        node.pop("host_node", None)
    return {**rest, "accel": "tcg", "cpu": cpu, "memory": memory}


def empty(path: Path) -> Path:
    """A file with nothing in it."""
    path.write_bytes(bytes(4096))
    return path


def image(path: Path, image_format: str) -> Path:
    """An empty image."""
    if not path.exists():
        command = [needs.program("qemu-img", "qemu-utils"), "create", "-q", "-f", image_format, str(path), "8M"]
        subprocess.run(command, check=True, timeout=60)
    return path


def complaints_of(command: list[str]) -> list[str]:
    """What QEMU says to a command line, paused; nothing where it takes it."""
    script = '{"execute": "qmp_capabilities"}\n{"execute": "query-status"}\n{"execute": "quit"}\n'
    done = subprocess.run(
        [*command, "-qmp", "stdio"], input=script, capture_output=True, text=True, timeout=120, check=False
    )
    lines = [line for line in done.stderr.splitlines() if not any(word in line for word in HARMLESS)]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if not any(answer.get("return", {}).get("status") == "prelaunch" for answer in answers):
        lines.append(f"exit {done.returncode}")
    return lines


class Answers(NamedTuple):
    """What became of domains: how many a QEMU took, and why the plan, or QEMU, did not take the others."""

    taken: int
    lacking: dict[str, list[str]]
    refused: dict[str, list[str]]


def answers(domains: list[tuple[Path, Imported]], version: str, base: Path) -> Answers:
    """Start each of the domains, as far as there is a plan for it."""
    host, lacking, refused = host_with(version, base), {}, {}
    for number, (file, result) in enumerate(domains):
        folder = base / str(number)
        folder.mkdir()
        data = with_what_is_here(yaml.safe_load(result.text), folder)
        try:
            plan = resolve(LoadedProfile.from_dict(data, name=f"g{number}"), host)
        except HostError as error:
            lacking[file.name] = [problem.message for problem in error.problems]
            continue
        plan.qemu_folder.mkdir(parents=True)
        plan.state_folder.mkdir(parents=True)
        if plan.firmware.vars and plan.firmware.vars_template:
            Path(plan.firmware.vars.value).write_bytes(Path(plan.firmware.vars_template).read_bytes())
        if complaints := complaints_of(argv(plan)):
            refused[file.name] = complaints
    return Answers(len(domains) - len(lacking) - len(refused), lacking, refused)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("every", [EVERY, pytest.param(1, marks=pytest.mark.soak)])
def test_what_is_called_startable_is_taken_by_a_real_qemu(
    every: int, version: str, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    domains = list(startable(version))
    assert len(domains) > 200
    found = answers(domains[::every], version, base)
    with capsys.disabled():
        print(
            f"\nQEMU {version}: {len(domains)} domains for q35 are startable; of {len(domains[::every])} it took "
            f"{found.taken}, lacks something for {len(found.lacking)}, and refused {len(found.refused)}"
        )
    assert found.refused == {}
    # What a version lacks is said as that, and no version lacks much.
    reasons = [reason for given in found.lacking.values() for reason in given]
    assert [reason for reason in reasons if f"QEMU {version}" not in reason] == []
    assert len(found.lacking) < len(domains) / 20


def test_what_a_qemu_does_not_take_is_seen(base: Path) -> None:
    command = [qemu_binary_of("10.0"), "-machine", "q35,accel=tcg", "-nodefaults", "-display", "none", "-S"]
    assert complaints_of(command) == []
    assert "not a valid device model" in " ".join(complaints_of([*command, "-device", "nothing"]))


def test_the_counts_do_not_fall(capsys: pytest.CaptureFixture[str]) -> None:
    counts: Counter[str] = Counter()
    domains = libvirts_domains()
    for file in domains:
        try:
            counts.update(imported(file.read_bytes()).counts)
        except ProfileError:
            counts["of domains that are not read"] += 1
    with capsys.disabled():
        print(f"\n{len(domains)} domains for x86_64, of whose parts: {dict(counts)}")
    assert counts["carried"] > 53_000
    assert counts["not supported"] < 4_300
