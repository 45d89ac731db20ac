"""The machine: virtual CPUs, memory, firmware."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.profile.fields import AbsolutePath, CpuFeature, Numbers, Size, matching
from sevlaunch.profile.model.base import Auto, Model


class Cpu(Model, frozen=True, kw_only=True):
    """Virtual CPUs."""

    model: Annotated[
        str,
        matching(
            r"[A-Za-z0-9][A-Za-z0-9._-]*",
            "QEMU CPU model; auto: EPYC for encrypted guests, the host's CPU with KVM, max with TCG",
            wanted="the name of a CPU model such as EPYC-v4, with its flags in cpu.features",
        ),
    ] = "auto"
    count: Annotated[int, Meta(ge=1, le=4096, description="number of vCPUs")] = 1
    maxcpus: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None,
        Meta(description="most vCPUs that the guest's tables have room for; default: count"),
    ] = None
    sockets: Annotated[int, Meta(ge=1, le=4096)] | None = None
    dies: Annotated[Annotated[int, Meta(ge=1, le=4096)] | None, Meta(description="dies of each socket")] = None
    modules: Annotated[
        Annotated[int, Meta(ge=1, le=4096)] | None, Meta(description="modules of each die (QEMU 9.1 and newer)")
    ] = None
    cores: Annotated[int, Meta(ge=1, le=4096)] | None = None
    threads: Annotated[int, Meta(ge=1, le=4096)] | None = None
    pin: Annotated[
        list[Numbers] | Auto | None,
        Meta(
            description="CPUs of the host for each vCPU, such as [0, 2-3]; auto: those of the NUMA nodes that memory "
            "comes from; default: all"
        ),
    ] = None
    features: Annotated[
        list[CpuFeature],
        Meta(description="CPU properties such as host-phys-bits=on"),
    ] = []


class Iommu(Model, frozen=True, kw_only=True):
    """A virtual IOMMU."""

    type: Annotated[
        Literal["auto", "none", "intel", "virtio"],
        Meta(description="auto: intel where an ordinary guest has more than 255 vCPUs, otherwise none"),
    ] = "auto"
    translation: Annotated[
        bool | None,
        Meta(description="intel: remap the devices' memory, and not their interrupts alone; default: only if named"),
    ] = None
    caching_mode: Annotated[bool, Meta(description="intel: the guest tells each change, for host devices")] = False


class Memory(Model, frozen=True, kw_only=True):
    """Guest memory."""

    size: Annotated[Size, Meta(description="size of guest memory")] = 1 << 30
    lock: Annotated[bool | Auto, Meta(description="keep memory from being swapped; auto: on for SEV and SEV-ES")] = (
        "auto"
    )
    hugepages: Annotated[Literal["2M", "1G"] | None, Meta(description="back memory with huge pages of this size")] = (
        None
    )
    prealloc: Annotated[
        bool | Auto, Meta(description="fill memory at the start; auto: when locked or on huge pages")
    ] = "auto"
    hard_limit: Annotated[
        Size | Auto | None,
        Meta(
            description="memory limit of the QEMU process (memory.max of its cgroup); auto: what it can take, counted"
        ),
    ] = None
    nodes: Annotated[
        list[Annotated[int, Meta(ge=0, lt=1024)]], Meta(description="NUMA nodes of the host that the memory comes from")
    ] = []


Distance = Annotated[int, Meta(ge=10, le=255)]


class NumaNode(Model, frozen=True, kw_only=True):
    """A NUMA node that the guest sees."""

    memory: Annotated[Size, Meta(description="its part of memory.size")]
    cpus: Annotated[Numbers | None, Meta(description="its vCPUs, such as 0-3; none: it has memory alone")] = None
    host_node: (
        Annotated[int, Meta(ge=0, lt=1024, description="NUMA node of the host that its memory comes from")] | None
    ) = None
    distances: Annotated[
        list[Distance],
        Meta(description="to each node, in their order, 10 to itself; default: 20 to the others"),
    ] = []


class Firmware(Model, frozen=True, kw_only=True):
    """UEFI firmware: a pflash pair (code, vars) or one stateless image; neither: chosen by what images have."""

    code: Annotated[AbsolutePath | None, Meta(description="read-only firmware code for pflash unit 0")] = None
    vars: Annotated[AbsolutePath | None, Meta(description="variable store that each guest's own copy starts from")] = (
        None
    )
    nvram: Annotated[
        AbsolutePath | None,
        Meta(description="the guest's own variable store; default: a file in sevlaunch's state folder"),
    ] = None
    image: Annotated[
        AbsolutePath | None, Meta(description="stateless firmware image with code and variables in one")
    ] = None
    secure_boot: Annotated[
        bool | None, Meta(description="choose a described firmware that boots signed systems alone")
    ] = None

    @property
    def files(self) -> tuple[str, ...]:
        """The files that are named."""
        return tuple(path for path in (self.code, self.vars, self.nvram, self.image) if path)
