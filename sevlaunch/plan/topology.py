"""How vCPUs are arranged in sockets, dies, modules, cores and threads, and the numbers that they get by it."""

from __future__ import annotations

from msgspec import Struct

from sevlaunch.profile.model import Cpu


class Topology(Struct, frozen=True):
    """How many there are of each level in one of the level above."""

    sockets: int
    dies: int
    modules: int
    cores: int
    threads: int

    def apic_id(self, index: int) -> int:
        """The number of the vCPU's interrupt controller: each level takes whole bits.

        Source: QEMU's include/hw/i386/topology.h, x86_apicid_from_cpu_idx().
        """
        number, shift = 0, 0
        for count in (self.threads, self.cores, self.modules, self.dies):
            index, here = divmod(index, count)
            number |= here << shift
            shift += (count - 1).bit_length()
        return number | index << shift


def arranged(cpu: Cpu) -> Topology:
    """The topology of all vCPUs that there may ever be; what the profile leaves open is filled with cores first.

    Source: QEMU's hw/core/machine-smp.c, machine_parse_smp_config(), since 6.2.
    """
    most = most_vcpus(cpu)
    dies, modules = cpu.dies or 1, cpu.modules or 1
    sockets, cores, threads = cpu.sockets, cpu.cores, cpu.threads
    if cores is None:
        sockets, threads = sockets or 1, threads or 1
        cores = most // (sockets * dies * modules * threads)
    elif sockets is None:
        threads = threads or 1
        sockets = most // (dies * modules * cores * threads)
    elif threads is None:
        threads = most // (sockets * dies * modules * cores)
    return Topology(sockets, dies, modules, cores, threads)


def most_vcpus(cpu: Cpu) -> int:
    """The vCPUs that the guest starts with, and those that it has room for."""
    return cpu.maxcpus or cpu.count


def highest_apic_id(cpu: Cpu) -> int:
    """The highest number of an interrupt controller that a vCPU can get."""
    return arranged(cpu).apic_id(most_vcpus(cpu) - 1)
