"""A guest's status for people."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import PROFILES, Command, wait_until


def test_an_internal_error_is_said_for_what_it_is(sevlaunch: Command, system_qemu: str) -> None:
    if not Path("/sys/module/kvm_pvm").exists():
        pytest.skip("only a KVM that can't run firmware (kvm_pvm) brings a guest there")
    sevlaunch("up", PROFILES / "plain.yaml", "--set", "accel=kvm", "--set", "cpu.model=EPYC-v3")
    wait_until(
        lambda: sevlaunch("status", "plain", "--format", "json").json["state"] == "internal-error", 30, "the end"
    )
    assert "KVM could not run the guest's code" in sevlaunch("status", "plain").stdout
    sevlaunch("down", "plain", "--now")
