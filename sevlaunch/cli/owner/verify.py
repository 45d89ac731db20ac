"""`sevlaunch owner verify`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sevlaunch.cli.failures import note
from sevlaunch.cli.output import Format, FormatOption, print_json, progress, say
from sevlaunch.cli.owner import options as launch
from sevlaunch.cli.owner import session_files as session
from sevlaunch.cli.profile_options import SetOption
from sevlaunch.errors import HostError, InsecureUse, UsageError

if TYPE_CHECKING:
    from sevlaunch.owner.claims import HostClaims
    from sevlaunch.owner.search import Findings
    from sevlaunch.owner.verify import LaunchVerdict

# Seconds for the search for an explanation: with the rest of the command they make at most 5.
SEARCH_LIMIT = 4.5

ProfileOption = Annotated[Path | None, typer.Option("--profile", help="The profile that the launch must be of.")]


def register(owner: typer.Typer) -> None:
    """Add the command to ``owner``."""
    owner.command("verify")(verify)


def verify(
    evidence: Annotated[Path, typer.Argument(help="What `sevlaunch evidence` printed on the host; - is stdin.")],
    tik: session.TikOption,
    tek: Annotated[
        Path | None,
        typer.Option("--tek", metavar="FILE", help="The other key, for secrets; PREFIX_tek.bin by default."),
    ] = None,
    profile: ProfileOption = None,
    lock: Annotated[
        Path | None, typer.Option("--lock", metavar="FILE", help="A launch lock file in place of a profile.")
    ] = None,
    min_api: Annotated[
        str, typer.Option("--min-api", metavar="MAJOR.MINOR", help="The oldest SEV firmware API to accept.")
    ] = "0.0",
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Verify on the host that runs the guest, which proves nothing.")
    ] = False,
    rehearsal: session.RehearsalOption = False,
    platform: session.PlatformOption = None,
    root: session.RootOption = None,
    verdict_file: session.VerdictOption = None,
    secrets: Annotated[
        list[str],
        typer.Option(
            "--secret", metavar="GUID:FILE", help="Wrap this secret if the answer is yes; luks:FILE for LUKS."
        ),
    ] = [],  # noqa: B006 - typer reads the default
    header: session.HeaderOption = None,
    payload: session.PayloadOption = None,
    overrides: SetOption = [],  # noqa: B006 - typer reads the default
    host: launch.HostOption = None,
    guest_type: launch.TypeOption = None,
    firmware: launch.FirmwareOption = None,
    firmware_hash: launch.FirmwareHashOption = None,
    kernel: launch.KernelOption = None,
    kernel_hash: launch.KernelHashOption = None,
    initrd: launch.InitrdOption = None,
    initrd_hash: launch.InitrdHashOption = None,
    cmdline: launch.CmdlineOption = None,
    cmdline_file: launch.CmdlineFileOption = None,
    cmdline_hash: launch.CmdlineHashOption = None,
    vcpus: launch.VcpusOption = None,
    cpu: launch.CpuOption = None,
    cpu_signature: launch.CpuSignatureOption = None,
    vmsa: launch.VmsaOption = None,
    guest_features: launch.FeaturesOption = None,
    policy: launch.PolicyOption = None,
    tries: launch.TryOption = [],  # noqa: B006 - typer reads the default
    output: FormatOption = Format.TEXT,
) -> None:
    """Was the launch right? Exit 0: yes; 1: no, and what would have to be otherwise.

    A yes is for the platform that `owner session` noted in PREFIX_platform.json: AMD's, or that of the root given. The
    answer is written beside the session's keys, into PREFIX_verdict.json, for `owner secret`. With --secret the secret
    is wrapped in the same step, after a yes alone.
    """
    from sevlaunch.files import read_blob
    from sevlaunch.owner import answer
    from sevlaunch.owner.claims import read_claims
    from sevlaunch.owner.explain import explain
    from sevlaunch.owner.lock import read_lock
    from sevlaunch.owner.others import read_others
    from sevlaunch.owner.sealed import beside
    from sevlaunch.owner.secret import check_injectable, read_secret, wrap_secrets
    from sevlaunch.owner.setup import Options
    from sevlaunch.owner.verify import Expectation, check_verifiable, verify_launch
    from sevlaunch.sevapi.session import KEY_BYTES, TransportKeys

    options = launch.read_options(
        guest_type=guest_type,
        firmware=firmware,
        firmware_hash=firmware_hash,
        kernel=kernel,
        kernel_hash=kernel_hash,
        initrd=initrd,
        initrd_hash=initrd_hash,
        cmdline=cmdline,
        cmdline_file=cmdline_file,
        cmdline_hash=cmdline_hash,
        vcpus=vcpus,
        cpu=cpu,
        cpu_signature=cpu_signature,
        vmsa=vmsa,
        guest_features=guest_features,
        vmm=launch.VmmName.QEMU,
        policy=policy,
    )
    minimum = launch.version("--min-api", min_api)
    claims = read_claims(evidence)
    integrity = read_blob(tik, "TIK", (KEY_BYTES,))
    if not secrets and (header or payload):
        raise UsageError("--header and --payload go with --secret", hint="add --secret GUID:FILE")
    if secrets:
        check_injectable(claims)
        tek = tek or beside(tik, "tek.bin")
    encryption = read_blob(tek, "TEK", (KEY_BYTES,)) if tek else b""
    wanted = [read_secret(text) for text in secrets]
    if lock:
        if profile or overrides or host or options != Options():
            raise UsageError(
                "a lock file says everything about a launch", hint="leave out what describes it, or --lock"
            )
        setup, named, expectation = None, None, read_lock(lock).expectation(minimum)
        check_verifiable(expectation.guest_type, claims, rehearsal=rehearsal)
    else:
        setup, named = launch.resolve_options(profile, overrides, host, options)
        check_verifiable(setup.launch.guest_type, claims, rehearsal=rehearsal)
        expectation = Expectation.of_setup(setup, minimum)
    vouched = session.vouched_for(claims, tik, integrity, platform=platform, root=root, rehearsal=rehearsal)
    _check_place(claims, insecure=insecure)
    verdict = verify_launch(claims, expectation, integrity, rehearsal=rehearsal)
    findings = None
    if not verdict.matches and claims.sev.enabled:
        end = time.monotonic() + SEARCH_LIMIT
        with progress("looking for what differs"):
            findings = explain(
                claims,
                expectation,
                verdict,
                integrity,
                tek=encryption,
                setup=setup,
                profile=named,
                others=read_others(tries),
                go_on=lambda: time.monotonic() < end,
            )
    answer.write_answer(verdict_file or beside(tik, answer.FILE_NAME), claims, integrity, verified=verdict.verified)
    written: session.WrittenPacket | None = None
    if wanted and verdict.verified:
        image = setup.launch.firmware if setup and setup.launch.firmware.image else None
        packet = wrap_secrets(wanted, TransportKeys(tek=encryption, tik=integrity), claims, verdict, firmware=image)
        written = session.write_packet(packet, wanted, tik, header, payload)
    _show(claims, verdict, findings, vouched, written, output)
    if not verdict.verified:
        raise typer.Exit(1)


def _check_place(claims: HostClaims, *, insecure: bool) -> None:
    """:raise InsecureUse: when the guest runs on this very machine. A rehearsal proves nothing anyway."""
    from sevlaunch.guest.evidence import read_evidence
    from sevlaunch.guest.folder import guests
    from sevlaunch.host.folders import runtime_folder

    if insecure or claims.rehearsal or not claims.measurement:
        return
    try:
        running = guests(runtime_folder())
    except HostError:
        # Somebody else's folder: no guests of this user's.
        return
    for folder in running:
        written = read_evidence(folder)
        if written and written.measurement == claims.measurement:
            raise InsecureUse(
                f"{folder.name} runs on this machine: whoever controls it controls this answer, too",
                hint="verify on a machine that you trust; to try it out here: --insecure",
            )


def _show(
    claims: HostClaims,
    verdict: LaunchVerdict,
    findings: Findings | None,
    vouched: str,
    written: session.WrittenPacket | None,
    output: Format,
) -> None:
    from sevlaunch.cli.owner.checks import checks_json, search_json
    from sevlaunch.owner.verify import REHEARSAL

    if output is Format.JSON:
        print_json(
            {
                "verified": verdict.verified,
                "name": claims.name,
                "rehearsal": verdict.rehearsal,
                "platform": vouched,
                "vmsa": verdict.vmsa or None,
                "checks": checks_json(verdict.checks),
                "search": search_json(findings),
                "packet": written.to_dict() if written else None,
            }
        )
        return
    if verdict.rehearsal:
        say(REHEARSAL)
    say(f"{'platform':<12} {'ok':<8} vouched for by {vouched}")
    marks = {True: "ok", False: "DIFFERS", None: "-"}
    for check in verdict.checks:
        say(f"{check.name:<12} {marks[check.ok]:<8} wanted {check.expected}")
        if check.expected != check.found:
            say(f"{'':<21} found  {check.found}")
    if verdict.vmsa:
        say(f"vmsa         {verdict.vmsa}")
    if findings is not None:
        say(str(findings))
    if written:
        written.show(claims)
    say(f"{claims.name}: {'verified' if verdict.verified else 'NOT verified'}")
    if claims.sev.state == "running":
        note("sevlaunch: note: the guest runs already: it is too late for a secret")
