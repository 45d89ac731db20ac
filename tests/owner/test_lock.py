"""Lock files: what goes into a launch, in numbers; enough for verify, and comparable."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.digest import Launch
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.lock import MAX_BYTES, compare_locks, read_lock
from sevlaunch.sevapi.kernel_hashes import KernelHashes, cmdline_hash
from tests.conftest import HOSTS, Command
from tests.owner.images import ovmf
from tests.owner.launches import POLICIES, Host, write_keys

MILAN = HOSTS / "milan-qemu-10.0.json"
IMAGE = ovmf()
CMDLINE = "console=ttyS0"
KERNEL = KernelHashes(hashlib.sha256(b"kernel").digest(), cmdline=cmdline_hash(CMDLINE.encode()))


@pytest.fixture
def profile(base: Path) -> Path:
    """A SEV-ES profile of which the host decides nothing but the QEMU."""
    (base / "ovmf.fd").write_bytes(IMAGE)
    (base / "kernel").write_bytes(b"kernel")
    file = base / "guest.yaml"
    file.write_text(
        "cpu: {model: EPYC-Milan, count: 2}\n"
        f"boot: {{kernel: kernel, cmdline: {CMDLINE}}}\n"
        "firmware: {image: ovmf.fd}\n"
        f"security: {{type: sev-es, policy: {POLICIES['sev-es']}, kernel_hashes: true}}\n"
    )
    return file


def lock_of(profile: Path, sevlaunch: Command, *options: str) -> dict[str, Any]:
    """What `render --lock` prints."""
    found: dict[str, Any] = sevlaunch("render", profile, "--host", MILAN, "--lock", *options).json
    return found


def launched(init2: bool, **changes: Any) -> Host:
    """The host that does what the profile says; ``changes``: of the launch."""
    launch = Launch(GuestType.SEV_ES, Firmware.of_image(IMAGE), KERNEL, 2, 0xA00F11, init2)
    return Host(launch, POLICIES["sev-es"], qemu="10.0.2").with_launch(**changes)


def test_a_lock_has_the_hash_of_all_that_is_measured(profile: Path, sevlaunch: Command) -> None:
    lock = lock_of(profile, sevlaunch)
    assert lock["firmware"] == {"path": str(profile.parent / "ovmf.fd"), "sha256": hashlib.sha256(IMAGE).hexdigest()}
    assert lock["kernel"]["sha256"] == hashlib.sha256(b"kernel").hexdigest()
    assert lock["initrd"] is None
    assert lock["cmdline"] == {"text": CMDLINE, "sha256": hashlib.sha256(CMDLINE.encode() + b"\0").hexdigest()}
    assert (lock["vcpus"], lock["policy"], lock["kernel_hashes"]) == (2, POLICIES["sev-es"], True)
    assert lock["cpu"] == {"model": "EPYC-Milan", "signature": 0xA00F11}
    assert lock["qemu"].startswith("10.0")
    assert set(lock["digests"]) == {"es-init"}


@pytest.mark.parametrize("init2", [True, False])
def test_a_lock_is_all_that_verify_needs(init2: bool, profile: Path, sevlaunch: Command, base: Path) -> None:
    lock = base / "guest.lock"
    lock.write_text(
        json.dumps(lock_of(profile, sevlaunch, "--set", f"security.legacy_vm_type={str(not init2).lower()}"))
    )
    for gone in ("guest.yaml", "kernel", "ovmf.fd"):
        (base / gone).unlink()
    tik, _ = write_keys(base)
    words = ("owner", "verify", launched(init2).write(base), "--tik", tik, "--lock", lock)
    assert sevlaunch(*words).stdout.endswith("guest: verified\n")
    launched(init2, vcpus=3).write(base)
    refused = sevlaunch(*words, "--format", "json", check=1).json
    assert refused["verified"] is False
    assert [check["name"] for check in refused["checks"] if check["ok"] is False] == ["vcpus", "digest", "measurement"]
    both = sevlaunch(*words, "--vcpus", "3", check=2).stderr
    assert "a lock file says everything" in both


def test_two_locks_are_compared(profile: Path, sevlaunch: Command, base: Path) -> None:
    one, other = base / "one.lock", base / "other.lock"
    one.write_text(json.dumps(lock_of(profile, sevlaunch)))
    other.write_text(json.dumps(lock_of(profile, sevlaunch, "--name", "another")))
    assert sevlaunch("owner", "compare", one, other).stdout == "the same launch\n"
    other.write_text(json.dumps(lock_of(profile, sevlaunch, "--set", "cpus=4")))
    found = sevlaunch("owner", "compare", one, other, "--format", "json", check=1).json
    assert found["same"] is False
    fields = {entry["field"]: (entry["first"], entry["second"]) for entry in found["differences"]}
    assert fields.pop("vcpus") == (2, 4)
    # The digest is the same only if vCPUs weren't measured.
    assert set(fields) == {"digests.es-init"}
    assert "vcpus\n" in sevlaunch("owner", "compare", one, other, check=1).stdout
    assert compare_locks(read_lock(one), read_lock(one)) == {}


@pytest.mark.parametrize(
    "change",
    [
        {"lock": 2},
        {"further": 1},
        {"digests": {}},
        {"digests": {"launch": "00"}},
        {"firmware": {"path": "x", "sha256": "zz"}},
        {"policy": -1},
        {"policy": 1 << 32},
        {"type": "sev-snp", "policy": 1 << 64},
        {"type": "tdx"},
        {"vcpus": 0},
    ],
)
def test_what_is_no_lock_is_refused_with_its_place(
    change: dict[str, Any], profile: Path, sevlaunch: Command, base: Path
) -> None:
    file = base / "guest.lock"
    file.write_text(json.dumps(lock_of(profile, sevlaunch)))
    read_lock(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(UsageError, match=f"is no lock file of version 1: {list(change)[-1]}"):
        read_lock(file)


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff" * 100, b"[" * 100_000, b"x" * (MAX_BYTES + 1)])
def test_any_other_file_is_no_lock(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "lock").write_bytes(content)
    with pytest.raises(UsageError, match="lock: "):
        read_lock(tmp_path / "lock")
