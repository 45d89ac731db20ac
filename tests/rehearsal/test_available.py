"""What a rehearsal needs, and the one line that says what is not there."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sevlaunch.errors import HostError
from sevlaunch.rehearsal import available
from tests import needs


def why_not(**kind: bool) -> str:
    """The reason, which is one line, and its hint."""
    with pytest.raises(HostError) as refused:
        available.check_available(**{"traced": False, "snp": False, **kind})
    assert "\n" not in refused.value.message
    assert refused.value.exit_code == 4
    return str(refused.value)


def test_this_machine_can_do_all_of_it() -> None:
    needs.rehearsal()
    available.check_available(traced=True, snp=True)


def test_another_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64", release="6.1"))
    assert "needs x86-64, found aarch64" in why_not()


def test_an_old_kernel_or_a_container_without_seccomp(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: SimpleNamespace(syscall=refuse))
    assert "seccomp user notification: Function not implemented" in why_not()


def test_tracing_that_is_forbidden_matters_where_it_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scope = tmp_path / "ptrace_scope"
    scope.write_text("3\n")
    monkeypatch.setattr(available, "_PTRACE_SCOPE", scope)
    available.check_available(traced=False, snp=False)
    assert f"ptrace, which {scope} forbids (3)" in why_not(traced=True)


def test_kvm_that_can_t_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "open", refuse)
    assert "can't open /dev/kvm: Permission denied" in why_not(snp=True)


def test_a_kernel_without_the_memory_of_snp_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    needs.rehearsal()
    monkeypatch.setattr(fcntl, "ioctl", lambda *_: 0)
    available.check_available(traced=False, snp=False)
    assert "KVM_SET_USER_MEMORY_REGION2" in why_not(snp=True)
