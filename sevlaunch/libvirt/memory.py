"""Memory: its size, what backs it, and that it stays where it is."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.units import MEBIBYTE, PAGE_SIZES, format_size

# libvirt's src/util/virutil.c, virScaleInteger().
_DECIMAL = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18}
_UNITS = {"b": 1, "byte": 1, "bytes": 1} | {
    suffix: 1 << 10 * power for power, letter in enumerate("KMGTPE", 1) for suffix in (letter, f"{letter}iB")
}
_HUGE_PAGES = {size: name for name, size in PAGE_SIZES.items()}

# libvirt's VIR_DOMAIN_MEMORY_PARAM_UNLIMITED, and the same in KiB; include/libvirt/libvirt-domain.h.
_UNLIMITED = 9007199254740991 << 10
_SNP = "an SNP guest's private memory is KVM's own, never swapped; this would take as much again for what it shares"


def import_memory(conversion: Conversion) -> None:
    """memory, currentMemory, memoryBacking and memtune/hard_limit."""
    outcomes, domain = conversion.outcomes, conversion.domain
    memory = domain.child("memory")
    size = scaled(memory)
    if size is not None:
        whole = round_up(size)
        if whole == size:
            outcomes.carry(("memory", "size"), format_size(size), memory, memory.part("unit"))
        else:
            outcomes.correct(("memory", "size"), format_size(whole), memory, "rounded up to whole MiB, as libvirt does")
            outcomes.same(memory.part("unit"), "see memory.size")
    outcomes.drop(memory.part("dumpCore"), "sevlaunch dumps no guests")
    current = domain.child("currentMemory")
    # libvirt itself lowers a currentMemory that is larger.
    if size is not None and (scaled(current) or 0) >= size:
        outcomes.same(current.part("unit"), "as memory")
        outcomes.same(current, "as memory")
    else:
        outcomes.unsupported(current, "sevlaunch lets no balloon out: the guest has all of its memory")
    _backing(conversion, domain.child("memoryBacking"))
    _lock(conversion, domain.child("memoryBacking").child("locked"))
    limit = domain.child("memtune").child("hard_limit")
    size = scaled(limit)
    if size is not None and size >= _UNLIMITED - (1 << 20):
        outcomes.drop(limit, "it means unlimited")
    elif size:
        outcomes.carry(("memory", "hard_limit"), format_size(size), limit, limit.part("unit"))


def round_up(size: int) -> int:
    """``size`` in whole MiB, as libvirt's qemuDomainAlignMemorySizes() has it."""
    return -(-size // MEBIBYTE) * MEBIBYTE


def scaled(element: Element) -> int | None:
    """The bytes that an element with a unit means; libvirt's default is KiB. None if it is no number."""
    count = number(element.text)
    unit = element.get("unit") or "KiB"
    factor = _UNITS.get(unit) or _UNITS.get(unit.upper()) or _DECIMAL.get(unit.upper())
    return None if count is None or factor is None or count < 0 else count * factor


def _lock(conversion: Conversion, locked: Element) -> None:
    outcomes = conversion.outcomes
    if locked and conversion.snp:
        outcomes.drop(locked, _SNP)
    elif locked:
        outcomes.carry(("memory", "lock"), True, locked)
    elif conversion.encrypted and not conversion.snp and ("memory", "hugepages") not in outcomes.values:
        about = Part(conversion.domain.child("memoryBacking") or conversion.security)
        outcomes.note(about, "memory is not <locked/>: sevlaunch locks it, memory of a SEV guest must not be swapped")


def _backing(conversion: Conversion, backing: Element) -> None:
    outcomes = conversion.outcomes
    pages = list(backing.child("hugepages").all("page"))
    if conversion.snp:
        outcomes.drop(backing.child("hugepages"), _SNP)
    elif len(pages) == 1 and pages[0].get("nodeset") is None:
        page = Element("page", pages[0].line, text=pages[0].get("size") or "", attributes=pages[0].attributes)
        size = _HUGE_PAGES.get(scaled(page) or 0)
        if size:
            outcomes.carry(("memory", "hugepages"), size, pages[0].part("size"), pages[0].part("unit"))
        else:
            outcomes.unsupported(pages[0], "huge pages have 2M or 1G")
    elif pages:
        outcomes.unsupported(backing.child("hugepages"), "one size of huge pages, for all of memory")
    elif backing.child("hugepages"):
        reason = "libvirt takes the host's default size; on x86 this is 2M unless the kernel was told otherwise"
        outcomes.correct(("memory", "hugepages"), "2M", backing.child("hugepages"), reason)
    if backing.child("source").get("type") in ("memfd", "anonymous"):
        outcomes.drop(backing.child("source"), "sevlaunch takes the backend that the other keys need")
    if backing.child("access").get("mode") == "shared":
        outcomes.drop(backing.child("access"), "memory is shared where virtiofsd needs it (shares)")
    elif backing.child("access"):
        outcomes.same(backing.child("access").part("mode"), "memory is private unless virtiofsd needs it")
    allocation = backing.child("allocation")
    if allocation.get("mode") == "immediate" and conversion.snp:
        outcomes.drop(allocation.part("mode"), _SNP)
    elif allocation.get("mode") in ("immediate", "ondemand"):
        outcomes.carry(("memory", "prealloc"), allocation.get("mode") == "immediate", allocation.part("mode"))
    outcomes.drop(allocation.part("threads"), "as many threads as the host has CPUs, up to 16")
    if conversion.encrypted:
        outcomes.drop(backing.child("nosharepages"), "encrypted pages are never alike")
