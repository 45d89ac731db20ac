"""Whatever profile the schema allows: one that `check` and `render` accept, every real QEMU starts, paused."""

from __future__ import annotations

import asyncio
import json
import subprocess
from itertools import count as count_from
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from msgspec.structs import replace

from sevlaunch.errors import SevlaunchError
from sevlaunch.flows.completion import complete_plan
from sevlaunch.guest.launch import launch
from sevlaunch.host.facts import Folders
from sevlaunch.host.helpers import helpers_here
from sevlaunch.host.images import images_at
from sevlaunch.host.model import Host
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import LoadedProfile
from tests import needs
from tests.conftest import VERSIONS, qemu_binary_of
from tests.guest.support import tries
from tests.plan.generator import Generator

pytestmark = pytest.mark.long


@tries(20, 500)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_profile_that_is_accepted_starts(version: str, count: int, base: Path) -> None:
    encrypted = needs.can_open_kvm() and needs.can_lock()
    folder = base / "profile"
    folder.mkdir()
    (base / "run").mkdir(mode=0o700)
    probed = Host.probe(qemu_binary_of(version))
    assert probed.qemu
    numbers = count_from(1)
    started: list[bool] = []

    # The ordinary run is the same each time; the long one looks elsewhere. What fails is as it was drawn: to make it
    # smaller takes hundreds of starts.
    @settings(
        max_examples=count,
        derandomize=count < 100,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(Generator(probed.qemu, folder, encrypted=encrypted).profiles())
    def start(data: dict[str, Any]) -> None:
        # What is kept of one is nothing for the next.
        folders = Folders(runtime=str(base / "run"), state=str(base / f"state{next(numbers)}"))
        plan = accepted(data, folder, replace(probed, folders=folders))
        assume(plan is not None)
        assert plan
        try:
            asyncio.run(brought_up(plan))
        except SevlaunchError as error:
            assume(plan.machine.accel.value != "kvm" or kvm_takes(qemu_binary_of(version), plan.cpu.model.value))
            pytest.fail(f"QEMU {version} refuses what was accepted:\n{json.dumps(data)}\n{error}", pytrace=False)
        started.append(plan.guest_type.encrypted)

    start()
    assert len(started) >= count
    assert set(started) == ({False, True} if encrypted else {False})


def kvm_takes(binary: str, model: str) -> bool:
    """Whether this machine's KVM takes all of a CPU model: one that is itself virtual may offer what it does not."""
    command = [binary, "-machine", "q35,accel=kvm", "-cpu", model, "-nodefaults", "-display", "none", "-S"]
    script = '{"execute": "qmp_capabilities"}\n{"execute": "quit"}\n'
    done = subprocess.run(
        [*command, "-qmp", "stdio"], input=script, capture_output=True, text=True, timeout=60, check=False
    )
    return "failed to set MSR" not in done.stderr


def accepted(data: dict[str, Any], folder: Path, host: Host) -> Plan | None:
    """The plan for a profile; None where `check` or `render` refuses it."""
    try:
        loaded = LoadedProfile.from_dict({"name": "g", **data}, base=folder)
        profile = loaded.profile
        here = replace(host, images=images_at(profile.images), helpers=helpers_here(profile.helpers))
        return complete_plan(loaded, resolve(loaded, here, rehearse=profile.security.encrypted), here)
    except SevlaunchError as error:
        assert error.problems, error
        return None


async def brought_up(plan: Plan) -> None:
    """Start the guest paused, and end it."""
    async with launch(plan, paused=True) as guest:
        evidence = await guest.evidence()
        assert evidence.sev.enabled == plan.guest_type.encrypted
