"""Checks of the secure processor: its device, its firmware, what it has room for."""

from __future__ import annotations

from sevlaunch.doctor.kernel import device_judgement
from sevlaunch.doctor.tree import ENCRYPTED, ES, SNP, HostCheck, Judgement, failed, ok, unknown, warning
from sevlaunch.host.facts import PlatformFacts
from sevlaunch.host.model import Host
from sevlaunch.remedies import MODULES

_STATES = {0: "uninit", 1: "init", 2: "working"}
# AMD 56860: the first firmware with the SNP ABI that Linux uses.
SNP_FIRMWARE = (1, 51)
_FIRMWARE_UPDATE = "update the BIOS, or the SEV firmware (package linux-firmware, amd-ucode; then reload ccp)"


def _device(host: Host) -> Judgement:
    container = host.platform.container if host.platform else ""
    return device_judgement(
        host.kvm.sev_device,
        "the secure processor",
        MODULES["/dev/sev"],
        container,
    )


def _unasked(problem: str, platform: PlatformFacts | None) -> Judgement:
    return unknown(f"the device was not asked: {problem}" if platform else "the device was not asked")


def _api(host: Host) -> Judgement:
    platform = host.platform
    if platform is None or platform.sev is None:
        return _unasked(platform.sev_problem if platform else "", platform)
    status = platform.sev
    return ok(f"SEV API {status.api_major}.{status.api_minor}, build {status.build}")


def _initialized(host: Host) -> Judgement:
    platform = host.platform
    if platform is None or platform.sev is None:
        return _unasked(platform.sev_problem if platform else "", platform)
    state = _STATES.get(platform.sev.state, str(platform.sev.state))
    if platform.sev.state == 0:
        return warning("uninit", "the first SEV guest initialises it, unless the kernel log has a reason why it can't")
    return ok(f"{state}, {platform.sev.guests} guests" + (", SEV-ES on" if platform.sev.es else ""))


def _snp_firmware(host: Host) -> Judgement:
    platform = host.platform
    if platform is None or platform.sev is None:
        return _unasked(platform.sev_problem if platform else "", platform)
    version = (platform.sev.api_major, platform.sev.api_minor)
    if version < SNP_FIRMWARE:
        return failed(f"API {version[0]}.{version[1]}, SNP needs 1.51", _FIRMWARE_UPDATE)
    return ok(f"API {version[0]}.{version[1]}, at least 1.51")


def _snp_status(host: Host) -> Judgement:
    platform = host.platform
    if platform is None or platform.snp is None:
        return _unasked(platform.snp_problem if platform else "", platform)
    status = platform.snp
    if not status.rmp_initialized:
        return failed("the RMP table is not initialised", "turn on SNP Memory (RMP Table) Coverage in the BIOS")
    if status.state == 0:
        return warning("uninit", "reload kvm_amd; the kernel log has the reason")
    return ok(f"init, RMP table initialised, {status.guests} guests")


def _tcb(host: Host) -> Judgement:
    platform = host.platform
    if platform is None or platform.snp is None:
        return _unasked(platform.snp_problem if platform else "", platform)
    current, reported = platform.snp.current_tcb, platform.snp.reported_tcb
    if current != reported:
        return warning(
            f"the firmware is {current:#018x}, attestation reports say {reported:#018x}",
            "commit the firmware, and reset the configuration: snphost commit, snphost config reset",
        )
    return ok(f"{current:#018x}, as in attestation reports")


def _left(kind: str, guests: str, host: Host) -> Judgement:
    pool = host.platform.asids.get(kind) if host.platform else None
    if pool is None:
        return unknown("the misc cgroup does not tell (it is off, or its root is not mounted here)")
    if pool.used >= pool.capacity:
        return failed(f"none: all {pool.capacity} are in use", f"stop one of the {guests} guests")
    return ok(f"{pool.capacity - pool.used} of {pool.capacity}")


SECURE_PROCESSOR = HostCheck(
    "psp",
    "/dev/sev",
    _device,
    "The way to the secure processor: QEMU opens it to start an encrypted guest.",
    ENCRYPTED,
    ENCRYPTED,
    children=(
        HostCheck(
            "psp.api",
            "firmware",
            _api,
            "Guest policies and owners ask for a version; the measurement contains it.",
            ENCRYPTED,
            ENCRYPTED,
            children=(
                HostCheck(
                    "psp.state",
                    "state",
                    _initialized,
                    "An initialised platform is ready for guests.",
                    concerns=ENCRYPTED,
                ),
                HostCheck("psp.snp.api", "firmware for SNP", _snp_firmware, "Older firmware has no SNP.", SNP, SNP),
                HostCheck(
                    "psp.snp.state",
                    "SNP state",
                    _snp_status,
                    "The RMP table says whose each page of memory is.",
                    SNP,
                    SNP,
                    children=(
                        HostCheck(
                            "psp.snp.tcb",
                            "TCB",
                            _tcb,
                            "Attestation reports are signed for the reported version.",
                            concerns=SNP,
                        ),
                    ),
                ),
            ),
        ),
    ),
)

ASIDS = (
    HostCheck(
        "asids.sev",
        "ASIDs left for SEV",
        lambda host: _left("sev", "SEV", host),
        "Each running SEV guest holds one.",
        frozenset(("sev",)),
        frozenset(("sev",)),
    ),
    HostCheck(
        "asids.sev_es",
        "ASIDs left for SEV-ES and SNP",
        lambda host: _left("sev_es", "SEV-ES and SNP", host),
        "Each running SEV-ES or SNP guest holds one.",
        ES,
        ES,
    ),
)
