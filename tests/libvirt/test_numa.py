"""NUMA nodes of a domain, and the nodes of the host that its memory comes from."""

from __future__ import annotations

import pytest

from sevlaunch.profile.model import Profile
from tests.libvirt.support import SEV, became, domain, imported, profile_of

CELLS = (
    "<cpu><numa><cell id='0' cpus='0-1' memory='512' unit='MiB'>{0}</cell>"
    "<cell id='1' cpus='2-3' memory='524288'>{1}</cell></numa></cpu>"
)
NEAR, FAR = "<sibling id='0' value='10'/>", "<sibling id='1' value='31'/>"
MEMNODES = "<memnode cellid='0' mode='strict' nodeset='1'/><memnode cellid='1' mode='strict' nodeset='0'/>"
TUNE = f"<numatune>{MEMNODES}</numatune>"
SNP = SEV.replace("type='sev'", "type='sev-snp'").replace("0x33", "0x30000")


def profile(*parts: str) -> Profile:
    """The profile of a domain of 4 vCPUs with these parts."""
    return profile_of(imported(text(*parts)))


def text(*parts: str) -> str:
    """The domain."""
    return domain(before="".join(parts)).replace("<vcpu>1</vcpu>", "<vcpu>4</vcpu>")


def test_cells_are_nodes_and_make_the_memory() -> None:
    made = profile(CELLS.format("", ""))
    assert [(node.cpus, node.memory >> 20, node.distances) for node in made.numa] == [
        ("0-1", 512, []),
        ("2-3", 512, []),
    ]
    assert made.memory.size == 1 << 30


def test_vcpus_in_no_cell_are_in_the_first_as_with_libvirt() -> None:
    made = profile(CELLS.format("", "").replace("cpus='2-3'", "cpus='2'"))
    assert [node.cpus for node in made.numa] == ["0-1,3", "2"]


def test_distances_that_are_left_out_are_libvirts_defaults() -> None:
    made = profile(CELLS.format(f"<distances>{FAR}</distances>", f"<distances>{NEAR.replace('10', '29')}</distances>"))
    assert [node.distances for node in made.numa] == [[10, 31], [29, 10]]


def test_memory_comes_from_the_nodes_that_numatune_names() -> None:
    assert [node.host_node for node in profile(CELLS.format("", ""), TUNE).numa] == [1, 0]
    assert profile("<numatune><memory mode='strict' nodeset='0-3,^1'/></numatune>").memory.nodes == [0, 2, 3]
    both = TUNE.replace("<memnode cellid='0'", "<memory mode='strict' nodeset='0-1'/><memnode cellid='0'")
    made = profile(CELLS.format("", ""), both)
    assert (made.memory.nodes, [node.host_node for node in made.numa]) == ([], [1, 0])


@pytest.mark.parametrize(
    ("tune", "element", "word"),
    [
        ("<memory mode='interleave' nodeset='0-1'/>", "numatune/memory", "mode strict"),
        ("<memory mode='strict' nodeset='a'/>", "numatune/memory", "a list of nodes"),
        ("<memnode cellid='0' mode='strict' nodeset='0-1'/>", "numatune/memnode", "one node for each"),
        ("<memnode cellid='7' mode='strict' nodeset='0'/>", "numatune/memnode", "one node for each"),
    ],
)
def test_what_sevlaunch_does_not_bind_is_told(tune: str, element: str, word: str) -> None:
    result = imported(text(CELLS.format("", ""), f"<numatune>{tune}</numatune>"))
    assert result.works
    assert any(kind == "not supported" and word in reason for kind, reason in became(result, element))


def test_an_snp_guests_memory_is_bound_and_backed_by_nothing() -> None:
    backing = "<memoryBacking><hugepages/><locked/><allocation mode='immediate'/></memoryBacking>"
    result = imported(text(CELLS.format("", ""), TUNE, backing, SNP))
    assert result.works, result.problems
    for element in ("memoryBacking/hugepages", "memoryBacking/locked", "numatune/memnode"):
        assert became(result, element)[0][0] == "dropped", element
    made = profile_of(result)
    assert [node.host_node for node in made.numa] == [None, None]
    assert (made.memory.hugepages, made.memory.lock, made.memory.prealloc) == (None, "auto", "auto")
