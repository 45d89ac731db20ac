"""What QEMU prints when it fails, and how it ended -> what that means and what to do."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sevlaunch.guest.failure import Known

# How QEMU ended, where it says nothing of it: its exit code, negative for a signal.
SIGNALS = {
    -signal.SIGSYS: "QEMU's sandbox stopped it at a system call that it forbids, starting a program for one: is there "
    "something in qemu.extra_args that needs one?",
    -signal.SIGKILL: "was it killed by the kernel (out of memory, see dmesg), or by its cgroup's limit?",
    -signal.SIGABRT: "QEMU gave up on itself, which is a fault of QEMU: report it there, with its output",
    -signal.SIGSEGV: "QEMU crashed, which is a fault of QEMU: report it there, with its output",
    -signal.SIGBUS: "memory that was promised was not there: huge pages, or the space behind a memory file",
}
# For a QEMU that said nothing, and whose end says nothing either.
SILENT = "it printed nothing: did its guest power off or panic at once? See its console, dmesg and the journal"

# target/i386/sev.c: "LAUNCH_START ret=1 fw_error=11 'Bad measurement'", "fw_error='5: Already owned'".
_FIRMWARE_ERROR = r"fw_err(?:or)?[=:]\s*'?(\d+)"


def ended_how(exit_code: int | None) -> str:
    """How QEMU ended, as a verb; its exit code as for :func:`hint_for`."""
    if exit_code is None:
        return "ended"
    return f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with exit code {exit_code}"


def hint_for(lines: Sequence[str], exit_code: int | None = None) -> str:
    """A hint for the known cause in QEMU's output, or in how it ended; or empty.

    :param exit_code: of QEMU, negative for a signal; None: it runs, or that is not known.
    """
    # Most starts don't fail.
    from sevlaunch.guest.known_failures import KNOWN
    from sevlaunch.guest.sev_failures import EXACT, SEV

    text = "\n".join(lines)
    exact = _first(EXACT, text)
    answered = re.search(_FIRMWARE_ERROR, text)
    if not exact and answered and int(answered[1]):
        from sevlaunch.sevapi.status import explain_status

        return explain_status(int(answered[1]))
    return exact or _first((*SEV, *KNOWN), text) or (SIGNALS.get(exit_code, "") if exit_code is not None else "")


def _first(table: Sequence[Known], text: str) -> str:
    return next((known.hint for known in table if re.search(known.pattern, text)), "")
