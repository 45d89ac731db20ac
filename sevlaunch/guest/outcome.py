"""How a guest ended: judged by QEMU's last SHUTDOWN event, its exit code, and whether a command took it down."""

from __future__ import annotations

import signal

from msgspec.structs import replace

from sevlaunch.errors import QemuError
from sevlaunch.evidence import Ended
from sevlaunch.guest.diagnosis import hint_for
from sevlaunch.guest.folder import LAUNCHER, QEMU_LOG, GuestFolder
from sevlaunch.guest.locks import REMOVING

# QMP's ShutdownCause (QEMU's qapi/run-state.json) -> how the guest ended, where somebody wanted it.
_HOW = {
    "guest-shutdown": "powered-off",
    "guest-reset": "rebooted",
    "host-qmp-system-reset": "rebooted",
    "host-qmp-quit": "quit",
    "host-signal": "terminated",
    "host-ui": "quit",
}
_PANIC = "guest-panic"
# QMP's RunState: those that a guest does not leave by itself.
CRASHED = ("guest-panicked", "internal-error", "io-error")
# What they mean, and what to do.
_CRASHES = {
    "guest-panicked": "the guest's system gave up: its last words are on its console",
    "internal-error": "KVM or QEMU could not go on with the guest's code: QEMU's output says more",
    "io-error": "a disk of the guest's could not be read or written: is its file system full?",
}


def crashed(state: str) -> Ended:
    """The end of a guest that can't go on, in this run state of QEMU's; QEMU may still be there."""
    return Ended("crashed", None, state)


def died(exit_code: int | None) -> Ended:
    """The end of a QEMU that was still needed.

    :param exit_code: QEMU's, as for :func:`judge`.
    """
    return Ended("exited" if not exit_code else "killed" if exit_code < 0 else "failed", exit_code, None)


def seen(shutdown: str) -> Ended:
    """The end of a QEMU of which no more is known than the reason of its last SHUTDOWN event, as for :func:`judge`."""
    if shutdown == _PANIC:
        return crashed("guest-panicked")
    return Ended(_HOW.get(shutdown, "exited"), None, shutdown or None)


def judge(shutdown: str, exit_code: int | None, folder: GuestFolder, lock_file: int) -> Ended:
    """How a guest ended whose QEMU has just ended.

    :param shutdown: the reason of QEMU's last SHUTDOWN event, or empty where there was none.
    :param exit_code: QEMU's; negative: the signal that killed it; None where nobody could see.
    :param folder: the guest's runtime folder; ``lock_file``, the guest's lock.
    """
    ended = seen(shutdown)
    if ended.how == "crashed":
        return ended
    if exit_code == 0 or (exit_code is None and ended.how != "exited"):
        return replace(ended, exit_code=exit_code)
    # `down` holds this lock while it ends QEMU, and until the folder is gone.
    if folder.lock_of(LAUNCHER, REMOVING) or not folder.is_locked_by(lock_file):
        return Ended("taken-down", exit_code, shutdown or None)
    return replace(died(exit_code), reason=last_words(folder) or shutdown or None)


def last_words(folder: GuestFolder) -> str | None:
    """What QEMU said last, but for warnings; None where it said nothing."""
    said = [line for line in folder.log_tail() if ": warning: " not in line]
    return said[-1] if said else None


def describe(ended: Ended) -> str:
    """The end in words, as the rest of a sentence about the guest."""
    if ended.how == "crashed":
        return f"has crashed ({ended.reason})"
    if ended.how == "killed" and ended.exit_code is not None:
        return f"has ended: QEMU was killed by {_signal_name(-ended.exit_code)}"
    if ended.how == "failed":
        return f"has ended: QEMU failed with exit code {ended.exit_code}"
    return "has ended" + (f" ({ended.reason})" if ended.reason else "")


def failure(name: str, ended: Ended, folder: GuestFolder) -> QemuError:
    """The error for an end that nobody wanted; with the end of QEMU's output, which stays in the guest's folder."""
    lines = folder.log_tail(QEMU_LOG)
    hint = _CRASHES.get(ended.reason or "", "") if ended.how == "crashed" else hint_for(lines, ended.exit_code)
    return QemuError(f"{name} {describe(ended)}", stderr=lines, hint=hint)


def _signal_name(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"
