"""VMSA pages as the secure processor measures them in SEV-ES and SNP launches: AMD 24593 (APM volume 2), table B-4.

Two generations differ in the floating point registers: since KVM_SEV_INIT2, KVM puts the reset values of MXCSR and the
x87 control word into the page; guests of KVM_SEV_ES_INIT have zeros there.
"""

from __future__ import annotations

from collections.abc import Iterator

from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmm_types import VMMType
from sevsnpmeasure.vmsa import VMSA

PAGE = 4096
_MXCSR = slice(0x408, 0x40C)
_X87_FCW = slice(0x410, 0x412)


def vmsa_pages(
    vcpus: int, *, ap_eip: int, cpu_signature: int, init2: bool, sev_features: int = 0, vmm: str = "QEMU"
) -> Iterator[bytes]:
    """One page of 4096 bytes for each vCPU: the boot CPU at the reset vector, the others at ``ap_eip``.

    :param ap_eip: from the firmware's SEV-ES reset block.
    :param cpu_signature: CPUID leaf 1, EAX, of the guest's CPU model.
    :param init2: the guest was initialised with KVM_SEV_INIT2, as every SNP guest is.
    :param sev_features: SEV_FEATURES of the VMSA; always 0 but for SNP and debug-swap.
    :param vmm: whose reset state: QEMU, ec2 or gce.
    """
    for page in VMSA(SevMode.SEV_ES, ap_eip, cpu_signature, sev_features, VMMType[vmm]).pages(vcpus):
        yield page if init2 else _of_es_init(page)


def _of_es_init(page: bytes) -> bytes:
    older = bytearray(page)
    older[_MXCSR] = bytes(4)
    older[_X87_FCW] = bytes(2)
    return bytes(older)
