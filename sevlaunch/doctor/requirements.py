"""What a guest of each type needs from the host and is not there: those of the doctor's checks that all need."""

from __future__ import annotations

from sevlaunch.errors import Problem
from sevlaunch.guest_type import GuestType
from sevlaunch.host.model import Host


def missing(guest_type: GuestType, accel: str, host: Host) -> list[Problem]:
    """Everything that ``host`` lacks for a guest of ``guest_type`` with ``accel`` (kvm, tcg or auto)."""
    return _problems(purpose_of(guest_type, accel), host)


def missing_for_rehearsal(host: Host) -> list[Problem]:
    """Everything that ``host`` lacks for a rehearsal: it takes KVM, and no SEV."""
    return _problems("rehearsal", host)


def purpose_of(guest_type: GuestType, accel: str) -> str:
    """What a host is wanted for: one of the doctor's purposes."""
    return "kvm" if accel == "kvm" and not guest_type.encrypted else guest_type


def _problems(purpose: str, host: Host) -> list[Problem]:
    if purpose == GuestType.NONE and host.qemu is not None:
        # An ordinary guest needs QEMU, and starts without the time to import all checks.
        return []
    from sevlaunch.doctor.examination import REQUIRED
    from sevlaunch.doctor.tree import failures, judge

    return [
        Problem(f"{top.title}: {finding.found}", hint=finding.remedy)
        if top is finding
        else Problem(f"{top.title}: {finding.title}: {finding.found}", hint=finding.remedy)
        for top, finding in failures(judge(REQUIRED, host, purpose))
    ]
