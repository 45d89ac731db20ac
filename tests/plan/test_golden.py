"""Each profile in profiles/ with each QEMU on a recorded host gives the command line in tests/golden.

The host is an EPYC Milan with SEV, ES and SNP, and the same without SEV. A change of behaviour shows as a difference
of these files: ``SEVLAUNCH_UPDATE_GOLDEN=1 pytest tests/plan/test_golden.py`` writes them; read what it changed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import SevlaunchError
from sevlaunch.flows.completion import complete_plan
from sevlaunch.host.facts import BootFacts, Device
from sevlaunch.host.model import Host
from sevlaunch.plan.formats import lines
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load
from tests.conftest import HOSTS, PROFILES, ROOT, VERSIONS
from tests.owner.images import ovmf

GOLDEN = ROOT / "tests/golden"
# Beside those for users, one with everything.
FILES = {path.stem: path for path in (*sorted(PROFILES.glob("*.yaml")), ROOT / "tests/everything.yaml")}


def without_sev(host: Host) -> Host:
    """The same machine with SEV off in the BIOS."""
    cpu = replace(host.cpu, encryption=None)
    kvm = replace(
        host.kvm,
        parameters={"kvm_amd.sev": "N", "kvm_amd.sev_es": "N", "kvm_amd.sev_snp": "N"},
        sev_device=Device(path="/dev/sev", error="No such file or directory"),
    )
    return replace(host, cpu=cpu, kvm=kvm)


def planned(profile: Path, host: Host, files: Path) -> Plan:
    """The plan with its init-data and ID block; what that takes out of an image, and measures, are small ``files``."""
    loaded = load(profile)
    if loaded.profile.boot.from_:
        for name in ("kernel", "initrd"):
            (files / name).write_text(name)
        (files / "firmware").write_bytes(ovmf())
        loaded = load(profile, overrides=[f"firmware.image={files}/firmware", f"boot.verity.root_hash={'5a' * 32}"])
        boot = BootFacts(kernel=f"{files}/kernel", initrd=f"{files}/initrd", cmdline="console=ttyS0")
        host = replace(host, boot=boot)
    return complete_plan(loaded, resolve(loaded, host), host)


def rendered(profile: Path, host: Host, files: Path) -> str:
    """The command line, or the refusal, with the folders here, and what comes from them, left out."""
    try:
        plan = planned(profile, host, files)
        text = lines(plan).replace(str(plan.state_folder), str(plan.state_folder.with_name("OF-THE-PROFILE")))
    except SevlaunchError as error:
        text = f"refused, exit code {error.exit_code}\n{error}"
    return text.replace(str(ROOT), "PROJECT").replace(str(files), "FILES") + "\n"


@pytest.mark.parametrize("kind", ["milan", "milan-without-sev"])
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", FILES)
def test_the_command_line_is_the_recorded_one(name: str, version: str, kind: str, tmp_path: Path) -> None:
    host = Host.load(HOSTS / f"milan-qemu-{version}.json")
    text = rendered(FILES[name], host if kind == "milan" else without_sev(host), tmp_path)
    file = GOLDEN / f"{kind}-qemu-{version}" / f"{name}.args"
    if os.environ.get("SEVLAUNCH_UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_no_golden_file_is_left_without_a_profile() -> None:
    assert {path.stem for path in GOLDEN.rglob("*.args")} == FILES.keys()
