"""Machine type, accelerator and the chipset's features."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.profile.machine_types import is_q35, why_unusable

_ACCELERATORS = {"kvm": "kvm", "qemu": "tcg"}


def import_machine(conversion: Conversion) -> None:
    """domain@type, os/type and the features that are the machine's."""
    _accelerator(conversion)
    _machine_type(conversion)
    _features(conversion)
    _iommu(conversion)


def _accelerator(conversion: Conversion) -> None:
    part = conversion.domain.part("type")
    accelerator = _ACCELERATORS[str(conversion.domain.get("type"))]
    if conversion.encrypted and accelerator == "tcg":
        conversion.outcomes.correct(("accel",), "kvm", part, "an encrypted guest needs KVM")
    else:
        conversion.outcomes.carry(("accel",), accelerator, part)


def _machine_type(conversion: Conversion) -> None:
    os_type = conversion.domain.child("os").child("type")
    outcomes = conversion.outcomes
    outcomes.same(Part(os_type), "QEMU's kind of guest")
    outcomes.same(os_type.part("arch"), "sevlaunch's only architecture")
    wanted = os_type.get("machine")
    part = os_type.part("machine") or Part(os_type)
    q35 = wanted is not None and is_q35(wanted)
    if conversion.encrypted and not q35:
        found = wanted or "libvirt's default, pc"
        outcomes.correct(("machine",), "q35", part, f"an encrypted guest needs a q35 machine, found {found}")
    elif conversion.machines is not None and wanted is not None and wanted not in conversion.machines:
        outcomes.correct(("machine",), "q35" if q35 else "pc", part, f"this QEMU has no machine type {wanted}")
    elif wanted is not None and (why := why_unusable(wanted)):
        outcomes.correct(("machine",), "pc", part, f"no guest can have it: {why}")
    elif wanted is None:
        outcomes.carry(("machine",), "pc", part, reason="libvirt's default")
    else:
        outcomes.carry(("machine",), wanted, part)


def _features(conversion: Conversion) -> None:
    features = conversion.domain.child("features")
    outcomes = conversion.outcomes
    about = Part(features if features else conversion.domain)
    if not features.child("acpi"):
        reason = (
            "without <acpi/> libvirt would start it with ACPI off, which a system that UEFI starts can't do without: on"
        )
        outcomes.note(about, reason)
    vmport = features.child("vmport")
    if not vmport:
        outcomes.note(about, "without <vmport/> libvirt leaves VMware's port on, which sevlaunch always has off")
    if vmport.get("state") == "off":
        outcomes.same(vmport.part("state"), "vmport is off")
    else:
        outcomes.note(vmport.part("state"), "vmport is always off: it reads registers that SEV-ES encrypts")
    smm = features.child("smm")
    if _state(smm) and conversion.encrypted:
        outcomes.note(smm.part("state") or Part(smm), "SEV-ES and SNP guests can't have SMM; others have it by default")
    elif _state(smm):
        outcomes.same(smm.part("state") or Part(smm), "q35 has SMM by default")
    elif smm and conversion.encrypted and not conversion.plain_sev:
        outcomes.same(smm.part("state"), "off for SEV-ES and SNP")
    elif smm:
        outcomes.carry(("smm",), False, smm.part("state"))
    ioapic = features.child("ioapic")
    if conversion.snp and ioapic.get("driver") == "qemu":
        outcomes.same(ioapic.part("driver"), "an SNP guest's is QEMU's")
    outcomes.drop(ioapic, "KVM's own, and QEMU's where a guest's type, its IOMMU or its many vCPUs need that")
    if features.child("apic").get("eoi"):
        eoi = features.child("apic").get("eoi")
        conversion.cpu_feature(features.child("apic").part("eoi"), f"kvm-pv-eoi={eoi}")


def _iommu(conversion: Conversion) -> None:
    iommu, outcomes = conversion.devices.child("iommu"), conversion.outcomes
    driver, model = iommu.child("driver"), iommu.get("model")
    if not iommu:
        return
    if conversion.encrypted:
        outcomes.drop(iommu, "QEMU can't read its tables in encrypted memory; interrupts reach every vCPU without it")
    elif model == "virtio":
        outcomes.carry(("iommu", "type"), "virtio", iommu.part("model"), Part(iommu))
    elif model == "intel":
        outcomes.carry(("iommu", "type"), "intel", iommu.part("model"), Part(iommu))
        for name in ("intremap", "eim"):
            outcomes.same(driver.part(name), "interrupts are always remapped")
        if driver.get("dma_translation") == "off":
            outcomes.carry(("iommu", "translation"), False, driver.part("dma_translation"))
        outcomes.same(driver.part("dma_translation"), "QEMU's default")
        if driver.get("caching_mode") == "on":
            outcomes.carry(("iommu", "caching_mode"), True, driver.part("caching_mode"))
        outcomes.same(driver.part("caching_mode"), "QEMU's default")


def _state(element: Element) -> bool:
    return bool(element) and element.get("state") != "off"
