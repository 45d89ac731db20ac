"""A guest's status for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sevlaunch.cli.output import Format, print_json, table
from sevlaunch.profile.policy import describe_policy, policy_format

if TYPE_CHECKING:
    from sevlaunch.evidence import Evidence
    from sevlaunch.flows.bring_up import BroughtUp

# QEMU's run states, and ours, that need a word.
_STATES = {
    "internal-error": "KVM could not run the guest's code. A paravirtual KVM (kvm_pvm) never can run firmware; else "
    "`sevlaunch logs NAME --qemu` says more",
    "abandoned": "the command that started it was killed: `sevlaunch down` clears it away",
    "unresponsive": "QEMU does not answer QMP: `sevlaunch down --now` ends it",
}


def show_started(finished: Sequence[BroughtUp], output: Format) -> None:
    """Print which guests run, and which do not and why."""
    if output is Format.JSON:
        print_json(
            [
                one.evidence.to_dict()
                if one.evidence
                else {"name": one.name, "state": "failed", "error": str(one.error)}
                for one in finished
            ]
        )
        return
    rows = [
        (one.name, one.evidence.state, str(one.evidence.pid), one.evidence.measurement or "")
        if one.evidence
        else (one.name, "failed", "-", str(one.error).partition("\n")[0])
        for one in finished
    ]
    print(table(("NAME", "STATE", "PID", "MEASUREMENT, OR WHY NOT"), rows))
    failed = sum(1 for one in finished if one.error)
    print(f"{len(finished) - failed} of {len(finished)} guests run")


def show_guest(shown: Evidence, output: Format) -> None:
    """Print evidence or a status."""
    if output is Format.JSON:
        print_json(shown.to_dict())
        return
    print(f"{shown.name} is {shown.state}" + (f" (pid {shown.pid})" if shown.pid else ""))
    if shown.rehearsal:
        print("  REHEARSAL: memory is NOT encrypted")
    if shown.state in _STATES:
        print(f"  {_STATES[shown.state]}")
    if shown.ended and shown.ended.reason:
        print(f"  QEMU's last  {shown.ended.reason}")
    if shown.qemu:
        print(f"  qemu         {shown.qemu.version}  {shown.qemu.binary}")
    if shown.firmware:
        print(f"  firmware     {shown.firmware.path}")
        if shown.firmware.sha256:
            print(f"               sha256 {shown.firmware.sha256}")
    if shown.vcpus:
        print(f"  vcpus        {shown.vcpus}")
    _show_security(shown)


def _show_security(shown: Evidence) -> None:
    sev = shown.sev
    if not sev.type.encrypted:
        print("  security     none: memory is not encrypted")
        return
    if not sev.enabled or sev.policy is None:
        print(f"  security     {sev.type}")
        return
    names = ", ".join(describe_policy(sev.policy, policy_format(sev.type))) or "no bits"
    print(f"  security     {sev.type}, state {sev.state}")
    print(f"  policy       {sev.policy:#x} ({names})")
    print(f"  firmware api {sev.api_major}.{sev.api_minor}, build {sev.build_id}")
    if shown.measurement:
        print(f"  measurement  {shown.measurement}")
    elif shown.report:
        print("  measurement  in the attestation report: see the evidence")
    elif not sev.type.measured_by_host:
        print("  measurement  in the attestation report that the guest fetches")
