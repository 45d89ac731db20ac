"""Checks of the processor: what it has by CPUID, and what of it BIOS and kernel let be used."""

from __future__ import annotations

from collections.abc import Callable

from sevlaunch.doctor.tree import ENCRYPTED, ES, SNP, HostCheck, Judgement, failed, ok, unknown, warning
from sevlaunch.host.facts import EncryptionLeaf
from sevlaunch.host.model import Host
from sevlaunch.remedies import linux_since

# Bits of MSR SYSCFG: AMD 24593 (APM volume 2), sections 7.10.2 and 15.36.1.
_SYSCFG_MEM_ENCRYPTION = 1 << 23
_SYSCFG_SNP = 1 << 24

_BIOS = "turn on SMEE (Secure Memory Encryption) and SVM in the BIOS: AMD CBS, CPU Common Options"
_BIOS_SNP = (
    "turn on SEV-SNP Support and SNP Memory (RMP Table) Coverage in the BIOS: AMD CBS, CPU Common Options and NBIO "
    "Common Options"
)
_VIRTUAL = "this is a virtual machine, and SEV is not passed on: use the physical EPYC host"


def _vendor(host: Host) -> Judgement:
    cpu = host.cpu
    if not cpu.vendor:
        return failed(f"CPUID could not be looked up ({cpu.read_by})", "run as root, after modprobe cpuid")
    shown = f"{cpu.name or cpu.vendor}, family {cpu.family} model {cpu.model} stepping {cpu.stepping}"
    if cpu.vendor != "AuthenticAMD":
        return failed(f"an encrypted guest needs an AMD EPYC, found {shown}", "use an EPYC host")
    return ok(shown)


def _leaf(host: Host) -> Judgement:
    if host.cpu.encryption is None:
        remedy = _VIRTUAL if host.cpu.hypervisor else f"use an EPYC 7001 or newer; {_BIOS}"
        return failed(f"SEV is not there ({host.cpu.name}: no CPUID leaf 0x8000001F)", remedy)
    leaf = host.cpu.encryption
    return ok(f"EAX {leaf.eax:#x}, EBX {leaf.ebx:#x}, ECX {leaf.ecx}, EDX {leaf.edx}")


def _encryption(host: Host) -> EncryptionLeaf:
    # The checks that ask stand below the one that makes sure of it.
    assert host.cpu.encryption is not None
    return host.cpu.encryption


def _bit(
    has: Callable[[EncryptionLeaf], bool], flag: str, bit: int, since: str, bios: str
) -> Callable[[Host], Judgement]:
    """A feature that CPUID has to show, and that the kernel has to have left on."""

    def judge(host: Host) -> Judgement:
        leaf = _encryption(host)
        if not has(leaf):
            return failed(
                f"not there: CPUID 0x8000001F EAX is {leaf.eax:#x}, bit {bit} is 0",
                _VIRTUAL if host.cpu.hypervisor else f"use {since} or newer; {bios}",
            )
        flags = host.cpu.kernel_flags
        if flags is None or flag in flags:
            return ok(f"CPUID 0x8000001F EAX bit {bit}" + ("" if flags is None else ", and the kernel uses it"))
        if flag == "sev_snp" and "kvm_amd.sev" in host.kvm.parameters and "kvm_amd.sev_snp" not in host.kvm.parameters:
            return failed(
                f"the CPU has it, but Linux {host.kernel} does not know it", f"use Linux {linux_since(flag)} or newer"
            )
        return failed(f"the CPU has it, but it is off in the BIOS: /proc/cpuinfo lists no {flag}", bios)

    return judge


def _sme(host: Host) -> Judgement:
    platform = host.platform
    if not _encryption(host).sme:
        return warning("not there: CPUID 0x8000001F EAX bit 0 is 0", _BIOS)
    if platform is None or platform.syscfg is None:
        problem = "not looked at" if platform is None else platform.syscfg_problem
        return unknown(
            f"the CPU has it; whether it is on stands in MSR 0xC0010010 ({problem})", "as root: modprobe msr"
        )
    if not platform.syscfg & _SYSCFG_MEM_ENCRYPTION:
        return failed(f"off: MSR 0xC0010010 (SYSCFG) is {platform.syscfg:#x}, bit 23 is 0", _BIOS)
    return ok(f"on: MSR 0xC0010010 (SYSCFG) is {platform.syscfg:#x}")


def _snp_enabled(host: Host) -> Judgement:
    platform = host.platform
    if platform is None or platform.syscfg is None:
        problem = "not looked at" if platform is None else platform.syscfg_problem
        return unknown(f"stands in MSR 0xC0010010 ({problem})", "as root: modprobe msr")
    if not platform.syscfg & _SYSCFG_SNP:
        return failed(f"off: MSR 0xC0010010 (SYSCFG) is {platform.syscfg:#x}, bit 24 is 0", _BIOS_SNP)
    return ok(f"on: MSR 0xC0010010 (SYSCFG) is {platform.syscfg:#x}")


def _es_asids(host: Host) -> Judgement:
    leaf = _encryption(host)
    if not leaf.es_guests:
        return failed(
            f"no ASIDs are left for SEV-ES and SNP guests: the minimum SEV ASID is {leaf.edx}",
            "raise the SEV-ES ASID Space Limit in the BIOS: AMD CBS, CPU Common Options (100 gives 99 guests)",
        )
    return ok(f"{leaf.es_guests} SEV-ES and SNP guests at once (ASIDs 1 to {leaf.es_guests})")


def _sev_asids(host: Host) -> Judgement:
    leaf = _encryption(host)
    if not leaf.sev_guests:
        return failed(
            f"no ASIDs are left for SEV guests: ECX is {leaf.ecx}, the minimum SEV ASID {leaf.edx}",
            "lower the SEV-ES ASID Space Limit in the BIOS: AMD CBS, CPU Common Options",
        )
    return ok(f"{leaf.sev_guests} SEV guests at once (ASIDs {leaf.edx} to {leaf.ecx})")


def _cbit(host: Host) -> Judgement:
    leaf = _encryption(host)
    return ok(f"C-bit {leaf.cbitpos}, the host loses {leaf.reduced_phys_bits} physical address bits")


def _vmpls(host: Host) -> Judgement:
    count = _encryption(host).vmpls
    return ok(f"{count} levels") if count else warning("none", "an SVSM can't run here; a plain SNP guest can")


def _page_flush(host: Host) -> Judgement:
    return ok("there" if _encryption(host).page_flush_msr else "not there: KVM flushes caches instead")


_SNP_CHECKS = (
    HostCheck(
        "processor.snp.enabled",
        "SNP in SYSCFG",
        _snp_enabled,
        "The kernel turns SNP on in every CPU at boot, if the BIOS prepared it.",
        SNP,
        SNP,
        root=True,
    ),
    HostCheck(
        "processor.snp.vmpl",
        "VM permission levels",
        _vmpls,
        "An SVSM runs at level 0 and the guest's system at a higher one.",
        concerns=SNP,
    ),
)

_SEV_CHECKS = (
    HostCheck("processor.cbit", "C-bit", _cbit, "QEMU gets its position as cbitpos.", concerns=ENCRYPTED),
    HostCheck(
        "processor.sev.asids",
        "ASIDs for SEV",
        _sev_asids,
        "Each running SEV guest holds one.",
        frozenset(("sev",)),
        frozenset(("sev",)),
    ),
    HostCheck(
        "processor.sev_es",
        "SEV-ES",
        _bit(lambda leaf: leaf.sev_es, "sev_es", 3, "an EPYC 7002 (Rome)", _BIOS),
        "Encrypts the registers of a guest, too; SNP builds on it.",
        ES,
        ES,
        children=(
            HostCheck(
                "processor.sev_es.asids",
                "ASIDs for SEV-ES and SNP",
                _es_asids,
                "Each running SEV-ES or SNP guest holds one below the minimum for SEV.",
                ES,
                ES,
            ),
            HostCheck(
                "processor.snp",
                "SEV-SNP",
                _bit(lambda leaf: leaf.sev_snp, "sev_snp", 4, "an EPYC 7003 (Milan)", _BIOS_SNP),
                "Protects the guest's memory from being changed or moved by the host.",
                SNP,
                SNP,
                children=_SNP_CHECKS,
            ),
        ),
    ),
    HostCheck(
        "processor.page_flush",
        "page flush MSR",
        _page_flush,
        "A shortcut for KVM; guests run without it.",
        concerns=ENCRYPTED,
    ),
)

PROCESSOR = HostCheck(
    "processor",
    "processor",
    _vendor,
    "SEV is a feature of AMD EPYC processors.",
    ENCRYPTED,
    ENCRYPTED,
    children=(
        HostCheck(
            "processor.leaf",
            "CPUID 0x8000001F",
            _leaf,
            "Tells what memory encryption the CPU has.",
            ENCRYPTED,
            ENCRYPTED,
            children=(
                HostCheck(
                    "processor.sme",
                    "SME",
                    _sme,
                    "SEV builds on memory encryption being on in the BIOS.",
                    ENCRYPTED,
                    ENCRYPTED,
                    root=True,
                ),
                HostCheck(
                    "processor.sev",
                    "SEV",
                    _bit(lambda leaf: leaf.sev, "sev", 1, "an EPYC 7001 (Naples)", _BIOS),
                    "Encrypts the memory of a guest with a key of its own.",
                    ENCRYPTED,
                    ENCRYPTED,
                    children=_SEV_CHECKS,
                ),
            ),
        ),
    ),
)
