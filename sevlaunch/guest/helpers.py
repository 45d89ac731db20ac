"""The helper programs beside a guest's QEMU, which it does not do without: which of them live, and what they said."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sevlaunch.errors import QemuError
from sevlaunch.guest.folder import QEMU_LOG, GuestFolder
from sevlaunch.guest.process import process_start_time
from sevlaunch.guest.record import Record
from sevlaunch.plan.places import CONSOLE_LOG

if TYPE_CHECKING:
    # QEMU is started before what only a status or a failure needs is imported.
    from sevlaunch.evidence import HelperInfo

# The helper of a rehearsal is QEMU's parent, and has its log.
REHEARSAL = "rehearsal"


def log_of(helper: str) -> str:
    """The name of a helper's log in the guest's folder."""
    return QEMU_LOG if helper == REHEARSAL else f"{helper}.log"


def helpers_of(folder: GuestFolder, record: Record | None) -> list[HelperInfo]:
    """How each helper of a guest is, whose QEMU lives."""
    from sevlaunch.evidence import HelperInfo

    found = []
    for one in record.companions if record else []:
        ended = process_start_time(one.pid) != one.start_time
        if one.name == CONSOLE_LOG and not ended:
            # None that the profile asks for.
            continue
        said = folder.log_tail(log_of(one.name), lines=1) if ended else []
        found.append(HelperInfo(one.name, "ended" if ended else "running", said[-1] if said else None))
    return found


def helper_ended(folder: GuestFolder, helper: str, when: str) -> QemuError:
    """The error for a helper that ended although the guest needs it."""
    from sevlaunch.guest.diagnosis import hint_for

    lines = folder.log_tail(log_of(helper))
    return QemuError(f"the helper program {helper} ended {when}", stderr=lines, hint=hint_for(lines))
