"""vCPUs, their topology and model, and the CPU properties that libvirt counts among the features."""

from __future__ import annotations

import math
import re

from sevlaunch.libvirt.conversion import Conversion, number, number_set
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.units import format_ranges

_TOPOLOGY = ("sockets", "dies", "cores", "threads")
_POLICIES = {"require": "on", "force": "on", "disable": "off", "forbid": "off"}
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

# features/hyperv -> QEMU's CPU property; libvirt's src/qemu/qemu_command.c, qemuBuildCpuCommandLine().
_HYPERV = {
    "relaxed": "hv-relaxed",
    "vapic": "hv-vapic",
    "vpindex": "hv-vpindex",
    "runtime": "hv-runtime",
    "synic": "hv-synic",
    "stimer": "hv-stimer",
    "reset": "hv-reset",
    "frequencies": "hv-frequencies",
    "reenlightenment": "hv-reenlightenment",
    "tlbflush": "hv-tlbflush",
    "ipi": "hv-ipi",
    "evmcs": "hv-evmcs",
    "avic": "hv-avic",
    "emsr_bitmap": "hv-emsr-bitmap",
    "xmm_input": "hv-xmm-input",
}
# features/kvm -> (QEMU's CPU property, its value for state='on').
_KVM = {
    "hidden": ("kvm", "off"),
    "hint-dedicated": ("kvm-hint-dedicated", "on"),
    "poll-control": ("kvm-poll-control", "on"),
    "pv-ipi": ("kvm-pv-ipi", "on"),
}


def import_cpu(conversion: Conversion) -> None:
    """vcpu, cpu, and the features hyperv, kvm and pmu."""
    _count(conversion)
    cpu = conversion.domain.child("cpu")
    _model(conversion, cpu)
    _topology(conversion, cpu.child("topology"))
    for feature in cpu.all("feature"):
        _feature(conversion, feature)
    _physical_bits(conversion, cpu.child("maxphysaddr"))
    _pins(conversion)
    features = conversion.domain.child("features")
    _hyperv(conversion, features.child("hyperv"))
    for name, (key, value) in _KVM.items():
        switch = features.child("kvm").child(name)
        if switch.get("state") == "on":
            conversion.cpu_feature(switch.part("state"), f"{key}={value}")
        else:
            conversion.outcomes.same(switch.part("state"), "QEMU's default")
    pmu = features.child("pmu")
    if pmu.get("state") in ("on", "off"):
        conversion.cpu_feature(pmu.part("state"), f"pmu={pmu.get('state')}")
    elif pmu:
        conversion.cpu_feature(pmu, "pmu=on")


def _count(conversion: Conversion) -> None:
    vcpu, outcomes = conversion.domain.child("vcpu"), conversion.outcomes
    current = number(vcpu.get("current"))
    most = number(vcpu.text)
    if vcpu.get("placement") == "static":
        outcomes.same(vcpu.part("placement"), "the host's scheduler places them")
    if current is not None and most is not None and current < most:
        outcomes.carry(("cpu", "count"), current, vcpu.part("current"))
        outcomes.carry(("cpu", "maxcpus"), most, vcpu)
    elif most is not None:
        outcomes.carry(("cpu", "count"), most, vcpu, vcpu.part("current"))
    count = outcomes.values.get(("cpu", "maxcpus")) or outcomes.values.get(("cpu", "count"))
    if count is not None and count.value != 1 and not conversion.domain.child("cpu").child("topology"):
        # QEMU's own default is one socket (since 6.2).
        reason = "libvirt's default without a topology: a socket for each"
        outcomes.carry(("cpu", "sockets"), count.value, Part(vcpu), reason=reason)


def _pins(conversion: Conversion) -> None:
    vcpu, outcomes = conversion.domain.child("vcpu"), conversion.outcomes
    count = outcomes.values.get(("cpu", "count"))
    pinned = {number(one.get("vcpu")): one for one in conversion.domain.child("cputune").all("vcpupin")}
    if count is None or not isinstance(count.value, int) or not (pinned or vcpu.get("cpuset")):
        return
    elements = [pinned.get(index, vcpu) for index in range(count.value)]
    sets = [number_set(element.get("cpuset")) for element in elements]
    for index, (element, cpus) in enumerate(zip(elements, sets, strict=True)):
        if all(sets):
            outcomes.carry(("cpu", "pin", index), format_ranges(cpus), element.part("cpuset"), element.part("vcpu"))
    if not all(sets):
        reason = "each vCPU needs a list of CPUs that sevlaunch can read, and not all have one"
        for left in (*pinned.values(), vcpu.part("cpuset")):
            outcomes.unsupported(left, reason)


def _model(conversion: Conversion, cpu: Element) -> None:
    outcomes, mode = conversion.outcomes, cpu.get("mode")
    model = cpu.child("model")
    for name in ("match", "check"):
        outcomes.drop(cpu.part(name), "QEMU itself checks what the host's CPU has")
    outcomes.drop(model.part("fallback"), "QEMU itself checks what the host's CPU has")
    outcomes.drop(cpu.part("migratable"), "sevlaunch migrates no guests")
    outcomes.drop(cpu.child("vendor"), "which host is asked for; the model tells the guest's vendor")
    if mode in ("host-passthrough", "host-model") and not conversion.kvm:
        reason = "the host's CPU takes KVM: all that QEMU can emulate rather"
        outcomes.correct(("cpu", "model"), "max", cpu.part("mode"), reason)
    elif mode == "host-passthrough":
        outcomes.carry(("cpu", "model"), "host", cpu.part("mode"))
    elif mode == "maximum":
        outcomes.carry(("cpu", "model"), "max", cpu.part("mode"))
    elif mode == "host-model" and conversion.encrypted:
        reason = "libvirt would look for the nearest model on each host; a launch measurement needs one that stays"
        outcomes.correct(("cpu", "model"), "auto", cpu.part("mode"), reason)
    elif mode == "host-model":
        outcomes.correct(
            ("cpu", "model"), "host", cpu.part("mode"), "the host's CPU rather than the nearest named model"
        )
    elif _WORD.fullmatch(model.text):
        outcomes.carry(("cpu", "model"), model.text, model, cpu.part("mode"))
    else:
        outcomes.unsupported(model, "QEMU has no such name of a CPU model")
        about = cpu.part("mode") or Part(cpu if cpu else conversion.domain)
        outcomes.note(about, "without a CPU model libvirt takes qemu64, sevlaunch cpu.model: auto")
    if mode and mode != "custom":
        outcomes.drop(model, f"with mode {mode} the host decides")


def _topology(conversion: Conversion, topology: Element) -> None:
    counts = {name: count for name in _TOPOLOGY if (count := number(topology.get(name))) is not None}
    values = conversion.outcomes.values
    vcpus = values.get(("cpu", "maxcpus")) or values.get(("cpu", "count"))
    if vcpus is not None and counts and math.prod(counts.values()) != vcpus.value:
        conversion.outcomes.unsupported(topology, f"it does not make the {vcpus.value} vCPUs that the guest has")
        return
    for name, count in counts.items():
        conversion.outcomes.carry(("cpu", name), count, topology.part(name))
    if topology.get("clusters") == "1":
        conversion.outcomes.same(topology.part("clusters"), "one, as QEMU's default")


def _feature(conversion: Conversion, feature: Element) -> None:
    name, policy = feature.get("name") or "", feature.get("policy")
    if _WORD.fullmatch(name) and name[0].isalpha() and policy in (*_POLICIES, None):
        # QEMU spells them with dashes (feat2prop() in target/i386/cpu.c).
        text = f"{name.replace('_', '-')}={_POLICIES[policy or 'require']}"
        conversion.outcomes.same(feature.part("policy"), "see cpu.features")
        conversion.cpu_feature(feature.part("name"), text)


def _physical_bits(conversion: Conversion, bits: Element) -> None:
    mode = bits.get("mode")
    if mode == "passthrough":
        conversion.cpu_feature(bits.part("mode"), "host-phys-bits=on")
        if number(bits.get("limit")):
            conversion.cpu_feature(bits.part("limit"), f"host-phys-bits-limit={number(bits.get('limit'))}")
    elif mode == "emulate" and number(bits.get("bits")):
        conversion.outcomes.same(bits.part("mode"), "see cpu.features")
        conversion.cpu_feature(bits.part("bits"), f"phys-bits={number(bits.get('bits'))}")


def _hyperv(conversion: Conversion, hyperv: Element) -> None:
    if hyperv.get("mode") == "passthrough":
        conversion.cpu_feature(hyperv.part("mode"), "hv-passthrough=on")
    elif hyperv.get("mode") == "custom":
        conversion.outcomes.same(hyperv.part("mode"), "each feature by itself")
    for feature in hyperv.children:
        state = feature.part("state")
        if feature.get("state") != "on":
            conversion.outcomes.same(state, "QEMU's default")
        elif feature.name == "spinlocks" and number(feature.get("retries"), 0) is not None:
            conversion.outcomes.same(state, "see cpu.features")
            conversion.cpu_feature(feature.part("retries"), f"hv-spinlocks={number(feature.get('retries'), 0):#x}")
        elif feature.name == "vendor_id" and _WORD.fullmatch(feature.get("value") or ""):
            conversion.outcomes.same(state, "see cpu.features")
            conversion.cpu_feature(feature.part("value"), f"hv-vendor-id={feature.get('value')}")
        elif feature.name in _HYPERV:
            conversion.cpu_feature(state, f"{_HYPERV[feature.name]}=on")
        direct = feature.child("direct")
        if feature.name == "stimer" and direct.get("state") == "on":
            conversion.cpu_feature(direct.part("state"), "hv-stimer-direct=on")
