"""NUMA: the nodes that the guest sees, and those of the host that its memory comes from."""

from __future__ import annotations

from sevlaunch.libvirt.conversion import Conversion, number, number_set
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.libvirt.memory import round_up, scaled
from sevlaunch.units import format_ranges, format_size

_SNP = "it binds the part of an SNP guest's memory that it shares alone: use cpu.pin"


def import_numa(conversion: Conversion) -> None:
    """cpu/numa and numatune."""
    cells = list(conversion.domain.child("cpu").child("numa").all("cell"))
    sizes = [_size(cell) for cell in cells]
    most = number(conversion.domain.child("vcpu").text) or 1
    left_out = set(range(most)).difference(*(number_set(cell.get("cpus")) for cell in cells))
    if cells and all(sizes):
        for index, cell in enumerate(cells):
            _cell(conversion, index, cell, len(cells), left_out)
        about = conversion.domain.child("memory") or Part(cells[0], "memory")
        conversion.outcomes.carry(("memory", "size"), format_size(sum(sizes)), about)
    _host_nodes(conversion, conversion.domain.child("numatune"), len(cells) if all(sizes) else 0)


def _size(cell: Element) -> int:
    """Bytes of a cell's memory, in whole MiB; libvirt's default unit is KiB."""
    size = Element("memory", cell.line, text=cell.get("memory") or "", attributes=cell.attributes)
    return round_up(scaled(size) or 0)


def _cell(conversion: Conversion, index: int, cell: Element, count: int, left_out: set[int]) -> None:
    outcomes, key = conversion.outcomes, conversion.next("numa")
    outcomes.carry((*key, "memory"), format_size(_size(cell)), cell.part("memory"), cell.part("unit"))
    outcomes.same(cell.part("id"), "its place in the list")
    cpus = number_set(cell.get("cpus"))
    if index == 0 and left_out:
        reason = f"vCPU {format_ranges(left_out)} is in no cell, and libvirt puts it into the first"
        outcomes.correct((*key, "cpus"), format_ranges(cpus | left_out), cell.part("cpus") or Part(cell), reason)
    elif cpus:
        outcomes.carry((*key, "cpus"), format_ranges(cpus), cell.part("cpus"))
    siblings = list(cell.child("distances").all("sibling"))
    far = {number(one.get("id")): number(one.get("value")) for one in siblings}
    for other in range(count if siblings else 0):
        # libvirt's defaults, src/conf/numa_conf.c: LOCAL_DISTANCE and REMOTE_DISTANCE.
        value = far.get(other) or (10 if other == index else 20)
        also = [one.part(name) for one in siblings if number(one.get("id")) == other for name in ("id", "value")]
        outcomes.carry((*key, "distances", other), value, also[0] if also else cell.child("distances"), *also[1:])


def _host_nodes(conversion: Conversion, tune: Element, cells: int) -> None:
    outcomes, memory = conversion.outcomes, tune.child("memory")
    for element, key in (
        (memory, ("memory", "nodes")),
        *((node, ("numa", number(node.get("cellid")) or 0, "host_node")) for node in tune.all("memnode")),
    ):
        if not element:
            continue
        nodes = sorted(number_set(element.get("nodeset")))
        own = key[0] == "numa"
        if conversion.snp:
            outcomes.drop(element, _SNP)
        elif element.get("mode") not in (None, "strict"):
            outcomes.unsupported(element, "sevlaunch binds memory to nodes (mode strict), and does nothing else")
        elif not nodes or (own and (len(nodes) > 1 or int(key[1]) >= cells)):
            outcomes.unsupported(element, "sevlaunch takes a list of nodes, and one node for each of the guest's")
        elif own:
            outcomes.carry(key, nodes[0], element.part("nodeset"), element.part("cellid"), element.part("mode"))
        elif list(tune.all("memnode")):
            outcomes.drop(element, "each of the guest's nodes says its own")
        else:
            for index, node in enumerate(nodes):
                outcomes.carry((*key, index), node, element.part("nodeset"), element.part("mode"))
