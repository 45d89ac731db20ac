"""A guest's status for people."""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import TYPE_CHECKING

from sevlaunch.cli.output import Format, print_json, say, table
from sevlaunch.profile.policy import describe_policy, policy_format

if TYPE_CHECKING:
    from sevlaunch.evidence import Ended, Evidence
    from sevlaunch.flows.bring_up import BroughtUp

# QEMU's run states, and ours, that need a word.
_STATES = {
    "internal-error": "KVM could not run the guest's code. A paravirtual KVM (kvm_pvm) never can run firmware; else "
    "`sevlaunch logs NAME --qemu` says more",
    "abandoned": "the command that started it was killed: `sevlaunch down` clears it away",
    "busy": "other commands have talked to its QEMU all the time: try again",
    "degraded": "a helper program that it needs has ended: `sevlaunch logs NAME --helpers` shows its output",
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
    say(*table(("NAME", "STATE", "PID", "MEASUREMENT, OR WHY NOT"), rows))
    failed = sum(1 for one in finished if one.error)
    say(f"{len(finished) - failed} of {len(finished)} guests run")


def show_guest(shown: Evidence, output: Format) -> None:
    """Print evidence or a status."""
    from sevlaunch.evidence import Status

    if output is Format.JSON:
        print_json(shown.to_dict())
        return
    say(f"{shown.name} is {shown.state}" + (f" (pid {shown.pid})" if shown.pid else ""))
    if shown.rehearsal:
        say("  REHEARSAL: memory is NOT encrypted")
    if shown.state in _STATES:
        say(f"  {_STATES[shown.state]}")
    if shown.ended:
        say(f"  ended        {_end(shown.ended)}")
    if shown.ended and shown.ended.reason:
        say(f"  QEMU's last  {shown.ended.reason}")
    if shown.qemu:
        say(f"  qemu         {shown.qemu.version}  {shown.qemu.binary}")
    if shown.firmware:
        say(f"  firmware     {shown.firmware.path}")
        if shown.firmware.sha256:
            say(f"               sha256 {shown.firmware.sha256}")
    if shown.vcpus:
        say(f"  vcpus        {shown.vcpus}")
    if shown.ssh:
        say(f"  ssh          {shown.ssh.host} port {shown.ssh.port}: sevlaunch ssh {quote(shown.name)}")
    for forward in shown.forwards:
        if not (shown.ssh and (forward.host, forward.port) == (shown.ssh.host, shown.ssh.port)):
            say(f"  forward      {forward.protocol} {forward.host}:{forward.port} to port {forward.guest_port}")
    for helper in shown.helpers if isinstance(shown, Status) else ():
        say(f"  helper       {helper.name} {helper.state}" + (f": {helper.reason}" if helper.reason else ""))
    _show_security(shown)


def _end(ended: Ended) -> str:
    if ended.exit_code is None:
        return ended.how
    if ended.exit_code < 0:
        return f"{ended.how} by signal {-ended.exit_code}"
    return f"{ended.how} with QEMU's exit code {ended.exit_code}"


def _show_security(shown: Evidence) -> None:
    sev = shown.sev
    if not sev.type.encrypted:
        say("  security     none: memory is not encrypted")
        return
    if not sev.enabled or sev.policy is None:
        say(f"  security     {sev.type}")
        return
    names = ", ".join(describe_policy(sev.policy, policy_format(sev.type))) or "no bits"
    say(f"  security     {sev.type}, state {sev.state}")
    say(f"  policy       {sev.policy:#x} ({names})")
    say(f"  firmware api {sev.api_major}.{sev.api_minor}, build {sev.build_id}")
    if shown.measurement:
        say(f"  measurement  {shown.measurement}")
    elif shown.report:
        say("  measurement  in the attestation report: see the evidence")
    elif not sev.type.measured_by_host:
        say("  measurement  in the attestation report that the guest fetches")
