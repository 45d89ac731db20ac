"""A virtual IOMMU: it remaps what devices do to the guest's memory and, Intel's, the interrupts that they send."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.addresses import Address
from sevlaunch.plan.context import Context
from sevlaunch.plan.cpu import LAST_XAPIC_ID
from sevlaunch.plan.option import Choice, Option, Parameter, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.plan.topology import highest_apic_id


class IommuPlan(Part, frozen=True, kw_only=True):
    """Intel's: ``extended`` interrupts reach more than 255 vCPUs; ``translation``: it remaps memory, too.

    ``address``: of virtio's, which is a PCI device; Intel's is part of the chipset.
    """

    driver: Choice[str]
    extended: Choice[bool]
    translation: Choice[bool]
    caching: Choice[bool]
    address: Address | None
    dma_api: Choice[bool]

    def options(self) -> Iterator[Option]:
        """The device; it stands before the devices that it serves."""
        place = (*self.address.parameters(), *virtio_parameters(self.dma_api)) if self.address else self._remapping()
        yield Option("-device", (self.driver.parameter(""), *place))

    def _remapping(self) -> Iterator[Parameter]:
        yield Parameter("intremap", "on", self.extended.reason)
        yield self.extended.parameter("eim")
        if not self.translation.value:
            yield self.translation.parameter("dma-translation")
        if self.caching.value:
            yield self.caching.parameter("caching-mode")


def resolve_iommu(context: Context, accel: str) -> Iterator[IommuPlan]:
    """The vIOMMU that the profile names, or that its vCPUs need."""
    iommu = context.profile.iommu
    highest = highest_apic_id(context.profile.cpu)
    needed = highest > LAST_XAPIC_ID and not context.profile.security.encrypted
    if iommu.type == "virtio":
        context.need_device("virtio-iommu-pci", "iommu")
        driver = context.choice("virtio-iommu-pci", "iommu", "type")
    elif iommu.type == "intel":
        driver = context.choice("intel-iommu", "iommu", "type")
    elif iommu.type == "auto" and needed:
        driver = Choice("intel-iommu", rule(f"devices reach vCPUs with numbers up to {highest} through it"))
    else:
        return
    if driver.value == "intel-iommu":
        context.need_device("intel-iommu", "iommu")
        _check_machine(context, highest)
    # Before QEMU 9.0 it takes KVM's help to extend them: hw/i386/intel_iommu.c, vtd_decide_config().
    extended = Choice(accel == "kvm" or highest > LAST_XAPIC_ID, rule("interrupts reach every vCPU"))
    yield IommuPlan(
        driver=driver,
        extended=extended,
        translation=context.choice(
            iommu.translation if iommu.translation is not None else iommu.type != "auto",
            "iommu",
            "translation",
            default="it is there for interrupts",
        ),
        address=context.address("iommu") if iommu.type == "virtio" else None,
        caching=context.choice(iommu.caching_mode, "iommu", "caching_mode"),
        dma_api=context.dma_api(),
    )


def _check_machine(context: Context, highest: int) -> None:
    machine = context.machine_type
    if machine.startswith("pc-q35-"):
        return
    if context.profile.iommu.type == "intel":
        context.refuse(f"the machine {machine} has no place for Intel's IOMMU", "iommu", "type", hint="use q35")
    else:
        context.lack(
            f"vCPUs with numbers up to {highest} take an IOMMU, for which the machine {machine} has no place",
            hint="use machine: q35, or fewer vCPUs",
        )
