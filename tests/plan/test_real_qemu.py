"""Every argument that a plan gives is accepted by the real QEMUs; the only thing refused here is SEV itself."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.guest.variables import prepare_variables
from sevlaunch.host.facts import Folders
from sevlaunch.host.firmware_facts import FirmwareDescriptor
from sevlaunch.host.model import Host
from sevlaunch.host.qemu import qemu_facts
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, PROFILES, VERSIONS, qemu_binary_of

SIZE_OF_VARS = 540672
REFUSALS = (
    "cbitpos check failed",
    "vm-type SEV-SNP not supported by KVM",
    "Failed to open /dev/sev",
    "Could not open '/dev/sev'",
    "failed to initialize kvm",
)


def with_each_qemu(*profiles: str) -> pytest.MarkDecorator:
    """Each of the profiles with each QEMU; SNP is there since 9.1."""
    pairs = [(profile, version) for version in VERSIONS for profile in profiles]
    return pytest.mark.parametrize(
        ("profile", "host_here"), [pair for pair in pairs if pair != ("sev-snp", "7.2")], indirect=["host_here"]
    )


@pytest.fixture(params=VERSIONS)
def host_here(request: pytest.FixtureRequest, base: Path) -> Host:
    """The recorded Milan, with a QEMU that is here and folders of the test's own."""
    host = Host.load(HOSTS / f"milan-qemu-{request.param}.json")
    folders = Folders(runtime=str(base / "run"), state=str(base / "state"))
    facts = qemu_facts(qemu_binary_of(request.param))
    return replace(host, qemu=facts, folders=folders)


def command_line(profile: str, host: Host, base: Path) -> list[str]:
    """The command line of a profile in profiles/, with all its files made in ``base``."""
    text = (PROFILES / f"{profile}.yaml").read_text()
    code, store, disk = base / "code.fd", base / "vars.fd", base / "disk.raw"
    code.write_bytes(bytes((4 << 20) - SIZE_OF_VARS))
    store.write_bytes(bytes(SIZE_OF_VARS))
    disk.write_bytes(bytes(1 << 20))
    image = base / "image.fd"
    image.write_bytes(bytes(4 << 20))
    for there, here in (
        ("/usr/share/qemu/ovmf-x86_64-ms-4m-code.bin", code),
        ("/usr/share/qemu/ovmf-x86_64-ms-4m-vars.bin", store),
        ("/var/lib/libvirt/qemu/nvram/sles15-sev-guest_VARS.fd", store),
        ("/vmimages/sev-guest-disk.raw", disk),
    ):
        text = text.replace(there, str(here))
    plan = resolve(loads(text, file=f"{profile}.yaml", base=PROFILES), host)
    plan.qemu_folder.mkdir(parents=True)
    plan.state_folder.mkdir(parents=True)
    return [
        argument.replace("/usr/share/OVMF/OVMF_CODE_4M.fd", str(code))
        .replace("/usr/share/ovmf/OVMF.amdsev.fd", str(image))
        .replace(str(plan.state_folder / "VARS.fd"), str(store))
        for argument in argv(plan)
    ]


def without_encryption(arguments: list[str]) -> list[str]:
    """The same command line without SEV, and less memory, so that QEMU goes all the way."""
    kept: list[str] = []
    for option in arguments:
        if option.startswith(("sev-guest,", "sev-snp-guest,")):
            kept.pop()
            continue
        for spelling in (",memory-encryption=sev0", ",confidential-guest-support=sev0"):
            option = option.replace(spelling, "")
        kept.append(option.replace("4096M", "256M").replace("2048M", "256M").replace("kvm", "tcg"))
    # TCG has its interrupt controllers in QEMU, and no host CPU to pass on.
    return [option.replace(",kernel-irqchip=split", "") if option != "host" else "max" for option in kept]


def run_to_the_monitor(arguments: list[str]) -> tuple[str, str]:
    """What QEMU answers on a monitor on its standard input, and what it prints to stderr."""
    script = '{"execute": "qmp_capabilities"}\n{"execute": "query-status"}\n{"execute": "quit"}\n'
    done = subprocess.run(
        [*arguments, "-qmp", "stdio"], input=script, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout, done.stderr


@with_each_qemu("sles15-sev", "sev", "sev-es", "sev-snp")
def test_with_kvm_the_only_thing_refused_is_sev(profile: str, host_here: Host, base: Path) -> None:
    needs.rehearsal()
    needs.no_sev("nothing is refused")
    _, stderr = run_to_the_monitor(command_line(profile, host_here, base))
    complaints = [line for line in stderr.splitlines() if line.strip()]
    assert complaints, "QEMU should have refused SEV on this host"
    for line in complaints:
        assert any(refusal in line for refusal in REFUSALS), line


@with_each_qemu("sles15-sev", "sev", "sev-es", "sev-snp", "plain")
def test_without_the_sev_object_qemu_takes_every_argument_and_is_paused(
    profile: str, host_here: Host, base: Path
) -> None:
    command = without_encryption(command_line(profile, host_here, base))
    if "mem-lock=on" in command:
        needs.locked_memory(1 << 30)
    stdout, stderr = run_to_the_monitor(command)
    complaints = [line for line in stderr.splitlines() if line.strip() and "TCG doesn't support" not in line]
    assert complaints == []
    answers = [json.loads(line) for line in stdout.splitlines()]
    assert any(answer.get("return", {}).get("status") == "prelaunch" for answer in answers), stdout


@pytest.mark.parametrize("version", ["7.2", "10.0", "11.1"])
def test_the_recorded_host_knows_what_the_real_qemu_knows(version: str) -> None:
    recorded = Host.load(HOSTS / f"milan-qemu-{version}.json").qemu
    assert recorded
    real = qemu_facts(qemu_binary_of(version))
    assert set(recorded.machines) <= set(real.machines)
    if real.release == recorded.release:
        assert real.objects == recorded.objects
    else:
        # The last one is of a Debian that moves on: scripts/test-tools takes what is newer there.
        assert version == VERSIONS[-1] and real.release > recorded.release
        assert recorded.objects.keys() <= real.objects.keys()


@pytest.mark.parametrize("mode", ["combined", "stateless"])
def test_one_unit_of_pflash_is_taken_as_a_store_of_the_guests_own_or_as_code_alone(
    mode: str, host_here: Host, base: Path
) -> None:
    image = base / "OVMF.fd"
    image.write_bytes(bytes(2 << 20))
    one = FirmwareDescriptor(
        file="/50.json",
        device="flash",
        mode=mode,
        executable=str(image),
        interface_types=["uefi"],
        machines=["*"],
        features=["amd-sev"],
    )
    described = replace(host_here, firmware=[one], firmware_images=[])
    kind = "none" if mode == "combined" else "sev"
    plan = resolve(loads(f"name: g\naccel: kvm\nmemory: 2G\nsecurity: {kind}\n", file="g.yaml"), described)
    plan.qemu_folder.mkdir(parents=True)
    plan.state_folder.mkdir(parents=True)
    lock = prepare_variables(plan, None)
    try:
        stdout, stderr = run_to_the_monitor(without_encryption([*argv(plan), "-overcommit", "mem-lock=off"]))
    finally:
        if lock >= 0:
            os.close(lock)
    assert [line for line in stderr.splitlines() if "TCG doesn't support" not in line] == []
    assert any(json.loads(line).get("return", {}).get("status") == "prelaunch" for line in stdout.splitlines())
    (store,) = plan.state_folder.glob("VARS*") if mode == "combined" else (image,)
    assert store.stat().st_size == 2 << 20
