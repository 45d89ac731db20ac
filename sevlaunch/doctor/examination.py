"""Judges a host: what runs here, what does not, why, and how to fix it. Pure: the facts were gathered by the probe.

What is checked is all that `sevctl ok`, `snphost ok` and `virt-host-validate qemu` check and that can be read without
loading a module, and what sevlaunch needs besides.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.doctor.kernel import KERNEL, KERNEL_LOG, KVM_DEVICE, SNP_HOST
from sevlaunch.doctor.memory import MEMORY
from sevlaunch.doctor.processor import PROCESSOR
from sevlaunch.doctor.programs import EXTRAS, FIRMWARE, QEMU, QEMU_OBJECTS, REHEARSAL
from sevlaunch.doctor.secure_processor import ASIDS, SECURE_PROCESSOR
from sevlaunch.doctor.tree import ENCRYPTED, PURPOSES, Finding, HostCheck, failures, judge
from sevlaunch.host.model import Host

# What no profile can do without: `sevlaunch up` looks at this before it makes a plan.
REQUIRED: tuple[HostCheck, ...] = (QEMU, PROCESSOR, KERNEL, KVM_DEVICE, SECURE_PROCESSOR)

# Everything, in the order in which it is to be fixed: the machine, the kernel, what is installed.
TREE: tuple[HostCheck, ...] = (
    PROCESSOR,
    KERNEL,
    KVM_DEVICE,
    SECURE_PROCESSOR,
    *ASIDS,
    SNP_HOST,
    KERNEL_LOG,
    replace(QEMU, children=QEMU_OBJECTS),
    FIRMWARE,
    MEMORY,
    REHEARSAL,
    *EXTRAS,
)


class Report(Struct, frozen=True):
    """``findings`` for ``purpose`` (None: all); ``fit`` tells for each purpose whether anything stands against it."""

    purpose: str | None
    findings: tuple[Finding, ...]
    fit: dict[str, bool]

    @property
    def is_fit(self) -> bool:
        """Whether the host is fit for the purpose; without one, for any encrypted guest."""
        if self.purpose is not None:
            return self.fit[self.purpose]
        return any(self.fit[guest_type] for guest_type in ENCRYPTED)


def examine(host: Host, purpose: str | None = None, *, tree: Sequence[HostCheck] = TREE) -> Report:
    """The report on ``host``, for one of :data:`PURPOSES` or for all."""
    fit = {name: not failures(judge(tree, host, name)) for name in PURPOSES}
    return Report(purpose, tuple(judge(tree, host, purpose)), fit)
