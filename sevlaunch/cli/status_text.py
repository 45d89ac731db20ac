"""A guest's status for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sevlaunch.cli.output import Format, print_json, table
from sevlaunch.guest_type import GuestType
from sevlaunch.profile.policy import describe_policy, policy_format

if TYPE_CHECKING:
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


def show_guest(document: dict[str, Any], output: Format) -> None:
    """Print the fields of evidence or status."""
    if output is Format.JSON:
        print_json(document)
        return
    pid = f" (pid {document['pid']})" if document["pid"] else ""
    print(f"{document['name']} is {document['state']}{pid}")
    if document["rehearsal"]:
        print("  REHEARSAL: memory is NOT encrypted")
    if document["state"] in _STATES:
        print(f"  {_STATES[document['state']]}")
    qemu, firmware, sev = document["qemu"], document["firmware"], document["sev"]
    if qemu:
        print(f"  qemu         {qemu['version']}  {qemu['binary']}")
    if firmware:
        print(f"  firmware     {firmware['path']}")
        if firmware["sha256"]:
            print(f"               sha256 {firmware['sha256']}")
    if document["vcpus"]:
        print(f"  vcpus        {document['vcpus']}")
    if sev["type"] == "none":
        print("  security     none: memory is not encrypted")
        return
    if not sev["enabled"]:
        print(f"  security     {sev['type']}")
        return
    guest_type = GuestType(sev["type"])
    names = ", ".join(describe_policy(sev["policy"], policy_format(guest_type))) or "no bits"
    print(f"  security     {sev['type']}, state {sev['state']}")
    print(f"  policy       {sev['policy']:#x} ({names})")
    print(f"  firmware api {sev['api_major']}.{sev['api_minor']}, build {sev['build_id']}")
    if document["measurement"]:
        print(f"  measurement  {document['measurement']}")
    elif document.get("report"):
        print("  measurement  in the attestation report: see the evidence")
    elif not guest_type.measured_by_host:
        print("  measurement  in the attestation report that the guest fetches")
