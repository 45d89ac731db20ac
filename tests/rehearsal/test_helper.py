"""The helper process beside QEMU: what becomes of a program that does not start, or ends before its VM is there."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import HostError
from sevlaunch.host.processor import cpu_facts
from sevlaunch.host.system import System
from sevlaunch.rehearsal import seccomp
from sevlaunch.rehearsal.platform import Platform, user_platform
from tests import needs
from tests.conftest import PROFILES, ROOT, Command, qemu_binary_of
from tests.rehearsal.owner import make_session
from tests.rehearsal.test_processor import PLATFORM


def helped(folder: Path, argv: list[str], *, init2: bool, kind: str = "sev") -> tuple[int, str, int]:
    """Let a helper run ``argv``: its exit code, what it said on standard error, and the PID that it told."""
    reader, writer = os.pipe()
    request = {"argv": argv, "inherit": [], "report": writer, "state_folder": str(folder), "kind": kind}
    file = folder / "rehearsal.json"
    file.write_text(json.dumps({**request, "init2": init2}))
    done = subprocess.run(
        [sys.executable, "-m", "sevlaunch.rehearsal", str(file)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        pass_fds=[writer],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writer)
    with os.fdopen(reader) as stream:
        return done.returncode, done.stderr, int(stream.read())


@pytest.mark.parametrize("init2", [False, True], ids=["filtered", "traced"])
@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["/nowhere/qemu"], 127, "can't start /nowhere/qemu"),
        (["/bin/sh", "-c", "exit 7"], 7, ""),
        (["/bin/sh", "-c", "kill -TERM $$"], 128 + 15, ""),
    ],
)
def test_the_helper_ends_as_what_it_started(argv: list[str], code: int, said: str, init2: bool, tmp_path: Path) -> None:
    found, stderr, pid = helped(tmp_path, argv, init2=init2)
    assert (found, pid > 1) == (code, True)
    assert said in stderr
    assert "Traceback" not in stderr


def test_a_signal_that_does_not_end_a_traced_program_reaches_it(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "trap 'exit 9' USR1; kill -USR1 $$; exit 0"]
    assert helped(tmp_path, argv, init2=True)[0] == 9


@pytest.mark.parametrize(
    ("kind", "rest"),
    [("sev-es", "sev-guest,policy=7,legacy-vm-type=off"), ("sev-snp", "sev-snp-guest")],
)
def test_without_read_only_memory_qemu_refuses_pflash(kind: str, rest: str, tmp_path: Path) -> None:
    needs.rehearsal()
    code, _ = needs.ovmf()
    device = tmp_path / "sev-device"
    device.touch()
    cbitpos = cpu_facts(System()).instruction_cbitpos
    security = f"{rest},id=sev0,cbitpos={cbitpos},reduced-phys-bits=1,sev-device={device}"
    machine = "q35,accel=kvm,smm=off,kernel-irqchip=split,confidential-guest-support=sev0,pflash0=code"
    flash = f"driver=raw,node-name=code,read-only=on,file.driver=file,file.filename={code}"
    options = ("-machine", machine, "-object", security, "-blockdev", flash, "-nodefaults", "-display", "none", "-S")
    exit_code, said, _ = helped(tmp_path, [qemu_binary_of("10.0"), *options], init2=True, kind=kind)
    assert (exit_code, "pflash with kvm requires KVM readonly memory support" in said) == (1, True), said


@pytest.mark.parametrize("content", ["{}", "[]", "no JSON"])
def test_keys_that_can_t_be_read_end_the_launch_and_say_what_to_do(
    content: str, sevlaunch: Command, base: Path
) -> None:
    needs.rehearsal()
    session = make_session(sevlaunch, 0x33)
    (sevlaunch.state / ".rehearsal/platform.json").write_text(content)
    options = ("--set", f"qemu.binary={qemu_binary_of('10.0')}", *session.overrides)
    refused = sevlaunch("up", PROFILES / "sev.yaml", "--rehearse", *options, check=None)
    assert refused.code in (4, 5)
    assert "the emulated processor's keys can't be read" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sevlaunch.left_behind() == []


def test_the_keys_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Platform] = []

    def generate() -> Platform:
        made.append(PLATFORM)
        return PLATFORM

    monkeypatch.setattr(Platform, "generate", generate)
    first, second = user_platform(tmp_path), user_platform(tmp_path)
    assert made == []
    assert first.chip_id == second.chip_id == PLATFORM.chip_id
    assert len(made) == 1
    file = tmp_path / ".rehearsal/platform.json"
    assert (file.parent.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ark": "cek"}, "ark is no RSA key"),
        ({"cek": "ark"}, "cek is no key on an elliptic curve"),
        ({"pek": None}, "keys are missing"),
    ],
)
def test_keys_of_the_wrong_kind_are_no_platform(changes: dict[str, str | None], message: str, tmp_path: Path) -> None:
    saved = json.loads(PLATFORM.to_json())
    for name, other in changes.items():
        saved[name] = saved[other] if other else None
    file = tmp_path / ".rehearsal/platform.json"
    file.parent.mkdir()
    file.write_text(json.dumps(saved))
    platform = user_platform(tmp_path)
    with pytest.raises(HostError, match=message) as refused:
        _ = platform.ark, platform.cek
    assert "remove .rehearsal/platform.json" in (refused.value.hint or "")


def test_a_key_that_is_no_pem_is_said(tmp_path: Path) -> None:
    saved = {**json.loads(PLATFORM.to_json()), "vcek": "secret nonsense"}
    platform = Platform.from_json(json.dumps(saved).encode())
    with pytest.raises(HostError, match="the emulated processor's keys can't be read") as refused:
        _ = platform.vcek
    assert "nonsense" not in str(refused.value)


class Libc:
    """A C library whose kernel knows the filter's flags up to ``newest`` only."""

    def __init__(self, newest: int, prctl: int = 0) -> None:
        self._newest = newest
        self._prctl = prctl
        self.asked: list[int] = []

    def prctl(self, *arguments: int) -> int:
        ctypes.set_errno(errno.EPERM)
        return self._prctl

    def syscall(self, number: int, mode: int, flags: int, program: Any) -> int:
        self.asked.append(flags)
        ctypes.set_errno(errno.EINVAL)
        return 7 if flags <= self._newest else -1


@pytest.mark.parametrize(("newest", "asked"), [(1 << 3 | 1 << 5, [40]), (1 << 3, [40, 8])])
def test_a_kernel_before_5_19_has_the_filter_without_its_newest_flag(
    newest: int, asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    libc = Libc(newest)
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: libc)
    assert seccomp.install(bytes(8)) == 7
    assert libc.asked == asked


@pytest.mark.parametrize(("libc", "number"), [(Libc(0), errno.EINVAL), (Libc(40, prctl=-1), errno.EPERM)])
def test_a_filter_that_the_kernel_refuses_is_an_error(libc: Libc, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: libc)
    with pytest.raises(OSError) as refused:
        seccomp.install(bytes(8))
    assert refused.value.errno == number


def test_a_listener_that_is_none_is_an_error_and_no_missing_caller() -> None:
    with Path("/dev/null").open() as stream:
        listener = seccomp.Listener(stream.fileno())
        notification = seccomp.Notification(1, 1, (0, 0, 0))
        for ask in (listener.receive, lambda: listener.answer(notification, 0, 0)):
            with pytest.raises(OSError):
                ask()
