"""What is said of qemu.extra_args agrees with the QEMUs that are here."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import ProfileError
from sevlaunch.host.facts import Folders
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from sevlaunch.profile.option_values import DEFAULT_ROMS
from sevlaunch.profile.qemu_options import OPTIONS
from tests.conftest import HOSTS
from tests.profile.test_extra_args import NEIGHBOURS, WARNED


@pytest.fixture
def ordinary_host(qemu_binary: str, base: Path) -> Host:
    """A recorded host with a QEMU that is here and folders of the test's own."""
    folders = Folders(runtime=str(base / "run"), state=str(base / "state"))
    return replace(Host.load(HOSTS / "milan-qemu-10.0.json"), qemu=qemu_facts(qemu_binary), folders=folders)


def ordinary_profile(base: Path, args: list[str]) -> str:
    """An ordinary guest with these arguments, with TCG and a firmware in ``base``."""
    ordinary = f"name: g\nsecurity: none\naccel: tcg\nmemory: 64M\nfirmware: {{image: {base}/image.fd}}\n"
    return f"{ordinary}qemu: {json.dumps({'extra_args': args})}\n"


@pytest.mark.parametrize("args", [*NEIGHBOURS, *(args for args, _, _ in WARNED)], ids=" ".join)
def test_qemu_accepts_what_is_accepted(args: list[str], ordinary_host: Host, base: Path) -> None:
    for name in ("a,if=ide", "a.raw", "vfio-pci", "image.fd"):
        (base / name).write_bytes(bytes(1 << 20))
    arguments = [argument.replace("FILES", str(base)) for argument in args]
    plan = resolve(loads(ordinary_profile(base, arguments)), ordinary_host)
    plan.qemu_folder.mkdir(parents=True)
    plan.state_folder.mkdir(parents=True, exist_ok=True)
    commands = '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
    done = subprocess.run([*argv(plan), "-qmp", "stdio"], input=commands, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert '"QMP"' in done.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["-netdev", "tap,id=n0,ifname=sltest0"], "could not launch network script"),
        (["-netdev", "bridge,id=n0"], "fork bridge helper"),
        (["-drive", "if=scsi,file=FILES/a.raw,format=raw"], "machine type does not support if=scsi"),
        (["-drive", "if=sd,file=FILES/a.raw,format=raw"], "machine type does not support if=sd"),
        (["-drive", "if=mtd,file=FILES/a.raw,format=raw"], "machine type does not support if=mtd"),
        (["-object", "memory-backend-ram,id=m,size=64M", "-numa", "node,memdev=m"], "memdev"),
        (["-numa", "node,cpus=0"], "NUMA"),
        (["-object", "memory-backend-ram,id=m,size=64M", "-device", "pc-dimm,memdev=m"], "slots|memory hotplug"),
        (["-device", "virtio-rng-pci,iommu_platform=on"], "neither legacy nor transitional"),
        (["-add-fd", "fd=99,set=1"], "fd is not valid"),
        (["-device", "xen-disk"], "xen"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_qemu_refuses_what_is_refused_as_impossible(
    args: list[str], message: str, ordinary_host: Host, base: Path
) -> None:
    for name in ("a.raw", "image.fd"):
        (base / name).write_bytes(bytes(1 << 20))
    plan = resolve(loads(ordinary_profile(base, [])), ordinary_host)
    plan.qemu_folder.mkdir(parents=True)
    plan.state_folder.mkdir(parents=True, exist_ok=True)
    command = [*argv(plan), *(argument.replace("FILES", str(base)) for argument in args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    # The sandbox of 7.2 kills QEMU when it starts a program; newer ones refuse the call.
    assert re.search(message, done.stderr) or done.returncode == -signal.SIGSYS, done.stderr


def message_of(binary: str, *arguments: str) -> str:
    """What QEMU says about arguments that it ends at."""
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.stderr


def options_in_help(binary: str) -> set[str]:
    """Every option that ``-help`` of this QEMU names."""
    text = subprocess.run([binary, "-help"], capture_output=True, text=True, timeout=60, check=True).stdout
    options = text[text.index("Standard options:") : text.index("During emulation")]
    first_columns = re.findall(r"^(?:-h or )?(-{1,2}[A-Za-z][^ \n]*)", options, re.MULTILINE)
    return {name.lstrip("-") for column in first_columns for name in column.split("/")} | {"h"}


def test_every_option_of_qemu_is_classified(qemu_binary: str) -> None:
    known = options_in_help(qemu_binary)
    assert len(known) > 100
    assert known - OPTIONS.keys() == set()


@pytest.mark.parametrize("name", OPTIONS)
def test_qemu_agrees_which_options_there_are_and_which_have_a_value(name: str, qemu_binary: str) -> None:
    option = OPTIONS[name]
    release = qemu_facts(qemu_binary).release
    there = release >= (option.since or (0, 0)) and not (option.gone and release >= option.gone)
    if option.takes_value:
        said = message_of(qemu_binary, f"-{name}")
        expected = f"-{name}: requires an argument"
    else:
        said = message_of(qemu_binary, f"-{name}", "-there-is-no-such-option")
        expected = "-there-is-no-such-option: invalid option"
    assert (expected if there else f"-{name}: invalid option") in said, said


def test_the_network_devices_that_qemu_gives_an_option_rom_are_known(qemu_binary: str) -> None:
    listed = subprocess.run([qemu_binary, "-device", "help"], capture_output=True, text=True, timeout=60).stdout
    section = listed[listed.index("Network devices:") : listed.index("Input devices:")]
    names = re.findall(r'^name "([^"]+)", bus PCI', section, re.MULTILINE)
    names += re.findall(r'alias "([^"]+)"', section)
    # Another device has to be there before it.
    names = [name for name in names if name != "pvrdma"]
    devices = ["-device", "pcie-root-port,id=rp0"]
    for name in names:
        # Virtual functions need a PCIe port.
        devices += ["-device", f"{name},id={name}" + (",bus=rp0" if name == "igb" else "")]
    asked: list[dict[str, object]] = [{"execute": "qmp_capabilities"}]
    asked += [
        {"execute": "qom-get", "arguments": {"path": f"/machine/peripheral/{name}", "property": "romfile"}}
        for name in names
    ]
    common = ["-machine", "q35", "-accel", "tcg", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio"]
    done = subprocess.run(
        [qemu_binary, *common, *devices],
        input="\n".join(map(json.dumps, [*asked, {"execute": "quit"}])),
        capture_output=True,
        text=True,
        timeout=120,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    roms = [answer["return"] for answer in answers if "return" in answer][1 : len(names) + 1]
    assert len(roms) == len(names), done.stderr
    with_rom = {name for name, rom in zip(names, roms, strict=True) if rom}
    assert len(with_rom) > 10
    assert with_rom == {name for name in names if DEFAULT_ROMS.fullmatch(name)}


@pytest.mark.parametrize(
    "arguments",
    [["-device=nothing"], ["-devic", "nothing"], ["---device", "nothing"], ["-incoming=defer"], ["-DEVICE", "nothing"]],
    ids=" ".join,
)
def test_qemu_takes_no_other_spelling_of_an_option(arguments: list[str], qemu_binary: str) -> None:
    assert "invalid option" in message_of(qemu_binary, *arguments)


@pytest.mark.parametrize(
    "value",
    [
        "nothing",
        "driver=nothing",
        "id=x,driver=nothing",
        "x,driver=nothing",
        '{"driver":"nothing"}',
        "{'driver':'nothing'}",
    ],
)
def test_qemu_takes_each_of_these_spellings_of_a_driver(value: str, qemu_binary: str) -> None:
    common = ["-display", "none", "-nodefaults", "-S", "-machine", "none"]
    assert "'nothing' is not a valid device model name" in message_of(qemu_binary, *common, "--device", value)


def test_a_plan_refuses_what_this_qemu_does_not_have() -> None:
    for version, args, message in (
        ("11.1", ["-no-hpet"], "-no-hpet is gone since QEMU 9.0, and this is QEMU 11.1"),
        ("7.2", ["-usb", "-perfmap"], "-perfmap came with QEMU 8.0, and this is QEMU 7.2"),
    ):
        host = Host.load(HOSTS / f"milan-qemu-{version}.json")
        with pytest.raises(ProfileError) as caught:
            resolve(loads(f"name: g\nsecurity: none\nqemu: {json.dumps({'extra_args': args})}\n"), host)
        (problem,) = caught.value.problems
        assert problem.path == f"qemu.extra_args.{len(args) - 1}"
        assert message in problem.message
