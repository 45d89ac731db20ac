"""Networks of a plan: what QEMU gets for each kind, and what is refused of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.host.facts import HelperFacts
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.formats import shell
from sevlaunch.plan.network import with_descriptors
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS


@pytest.fixture
def milan() -> Host:
    """A recorded host."""
    return Host.load(HOSTS / "milan-qemu-10.0.json")


def plan_of(host: Host, *networks: str, more: str = "") -> Plan:
    """The plan of a guest with these networks."""
    return resolve(loads(f"name: g\nnetworks: [{', '.join(networks)}]\n{more}"), host)


def options(plan: Plan) -> list[str]:
    """What the networks add to the command line."""
    return [word for word in argv(plan) if "id=net" in word]


@pytest.mark.parametrize(
    ("network", "netdev", "device"),
    [
        (
            "{type: tap, interface: t0, queues: 4, vhost: true}",
            "tap,id=net0,ifname=t0,script=no,downscript=no,queues=4,vhost=on",
            "virtio-net-pci,mq=on,vectors=10,",
        ),
        ("{type: tap, descriptors: [7]}", "tap,id=net0,fd=7", "virtio-net-pci,"),
        ("{type: tap, descriptors: [7, 9, 5]}", "tap,id=net0,fds=7:9:5", "virtio-net-pci,mq=on,vectors=8,"),
        ("{type: bridge, bridge: br0, vhost: true}", "tap,id=net0,fd=10,vhost=on", "virtio-net-pci,"),
        ("{type: macvtap, interface: m0}", "tap,id=net0,fd=10", "virtio-net-pci,"),
        ("{type: macvtap, interface: m0, queues: 2}", "tap,id=net0,fds=10:11", "virtio-net-pci,mq=on,vectors=6,"),
        ("{type: user, mtu: 1280}", "user,id=net0", "virtio-net-pci,host_mtu=1280,"),
        ("{type: user, model: e1000e}", "user,id=net0", "e1000e,"),
    ],
)
def test_each_kind_is_what_qemu_takes(milan: Host, network: str, netdev: str, device: str) -> None:
    backend, front = options(plan_of(milan, network))
    assert backend == netdev
    driver, _, properties = device.partition(",")
    assert front.startswith(f"{driver},id=net0-device,netdev=net0,mac=52:54:00:")
    assert set(properties.strip(",").split(",")) - {""} <= set(front.split(","))
    assert "romfile=" in front.split(",")
    assert ("iommu_platform=on" in front.split(",")) == (driver == "virtio-net-pci")
    assert ("mq=on" in front) == ("mq=on" in device)


def test_the_numbers_of_descriptors_are_those_of_the_start(milan: Host) -> None:
    plan = plan_of(
        milan,
        "{type: bridge, bridge: br0}",
        "{type: tap, descriptors: [10, 11]}",
        "{type: macvtap, interface: m0, queues: 2}",
    )
    # Those that a program hands in keep their numbers, so the others make room.
    assert [one.number for one in plan.needs.descriptors] == [12, 10, 11, 13, 14]
    started = replace(plan, networks=with_descriptors(plan.networks, {12: 40, 10: 10, 11: 11, 13: 41, 14: 42}))
    words = [word for word in argv(started) if word.startswith("tap,")]
    assert words == ["tap,id=net0,fd=40", "tap,id=net1,fds=10:11", "tap,id=net2,fds=41:42"]


def test_passt_tells_the_guest_the_mtu(milan: Host) -> None:
    plan = plan_of(milan, "{type: passt, mtu: 9000}")
    [passt] = plan.companions
    assert passt.argv[passt.argv.index("--mtu") + 1] == "9000"
    assert "host_mtu=9000" in options(plan)[1]
    assert "--mtu" not in plan_of(milan, "{type: passt}").companions[0].argv


def test_a_newer_passt_maps_the_guests_memory(milan: Host) -> None:
    newer = HelperFacts(path="/usr/bin/passt", options=["--vhost-user", "--no-map-gw"])
    plan = plan_of(replace(milan, helpers={"passt": newer}), "{type: passt, vhost_user: true, host_access: false}")
    [passt] = plan.companions
    assert {"--vhost-user", "--no-map-gw"} <= set(passt.argv)
    assert "--stderr" not in passt.argv
    words = argv(plan)
    assert words[words.index("vhost-user,id=net0,chardev=passt0") - 2] == f"socket,id=passt0,path={passt.socket}"
    assert any(word.startswith("memory-backend-memfd,") and "share=on" in word for word in words)
    [device] = [word for word in words if word.startswith("virtio-net-pci")]
    assert "iommu_platform=off" in device
    older = replace(milan, helpers={"passt": HelperFacts(path="/usr/bin/passt", options=["--stderr"])})
    with pytest.raises(HostError, match="/usr/bin/passt has no --vhost-user"):
        plan_of(older, "{type: passt, vhost_user: true}")
    [passt] = plan_of(older, "{type: passt}").companions
    assert "--stderr" in passt.argv
    assert {"--vhost-user", "--no-map-gw"}.isdisjoint(passt.argv)


def test_a_script_opens_what_a_shell_can_and_names_the_rest(milan: Host, tmp_path: Path) -> None:
    host = replace(milan, folders=replace(milan.folders, runtime=str(tmp_path / "r"), state=str(tmp_path / "s")))
    script = shell(plan_of(host, "{type: macvtap, interface: m0}", "{type: bridge, bridge: br0}"))
    assert '10<>"/dev/tap$(cat /sys/class/net/m0/ifindex)"' in script
    assert "# descriptor 11 is for `sevlaunch up` to open: qemu-bridge-helper sends one on br0 over a socket" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


REFUSED = {
    "two on one tap": (
        "{type: tap, interface: t}, {type: tap, interface: t}",
        "networks.1.interface",
        "two networks are on the interface t",
    ),
    "a tap as a macvtap": (
        "{type: macvtap, interface: t}, {type: user}, {type: tap, interface: t}",
        "networks.2.interface",
        "two networks are on the interface t",
    ),
    "two with one address": (
        "{type: user, mac: '52:54:00:00:00:01'}, {type: user, mac: '52:54:00:00:00:01'}",
        "networks.1.mac",
        "two networks have the MAC address 52:54:00:00:00:01",
    ),
    "two on one slot": (
        "{type: user, slot: 1}, {type: user}, {type: user, slot: 1}",
        "networks.2.slot",
        "networks.0 is on slot 1",
    ),
    "one descriptor twice": (
        "{type: tap, descriptors: [7]}, {type: tap, descriptors: [8, 7]}",
        "networks.1.descriptors.1",
        "descriptor 7 stands there twice",
    ),
    "no interface": ("{type: tap}", "networks.0", "needs interface, or descriptors"),
    "an interface and descriptors": (
        "{type: tap, interface: t, descriptors: [7]}",
        "networks.0.descriptors",
        "leave one of them out",
    ),
    "queues that are no descriptors": (
        "{type: tap, descriptors: [7, 8], queues: 3}",
        "networks.0.queues",
        "found 2 descriptors and 3 queues",
    ),
    "queues of a bridge": (
        "{type: bridge, bridge: b, queues: 2}",
        "networks.0.queues",
        "qemu-bridge-helper makes an interface of one queue",
    ),
    "packets that slirp cuts": ("{type: user, mtu: 9000}", "networks.0.mtu", "at most 1500 bytes"),
    "an MTU that e1000e does not tell": ("{type: user, model: e1000e, mtu: 1400}", "networks.0.mtu", "is for virtio"),
    "vhost without virtio": (
        "{type: tap, interface: t, model: e1000e, vhost: on}",
        "networks.0.vhost",
        "is for virtio devices, found model e1000e",
    ),
    "queues without virtio": (
        "{type: tap, interface: t, model: e1000e, queues: 2}",
        "networks.0.queues",
        "is for virtio devices",
    ),
    "a passt that knows no DMA API": (
        "{type: passt, vhost_user: true, iommu_platform: on}",
        "networks.0.iommu_platform",
        "passt does not know the DMA API",
    ),
    "a passt that maps memory for e1000e": (
        "{type: passt, vhost_user: true, model: e1000e}",
        "networks.0.vhost_user",
        "is for virtio devices",
    ),
    "the DMA API without virtio": (
        "{type: user, model: e1000e, iommu_platform: off}",
        "networks.0.iommu_platform",
        "is for virtio devices",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_be_is_refused(name: str) -> None:
    networks, path, message = REFUSED[name]
    with pytest.raises(ProfileError) as caught:
        loads(f"name: g\ncpus: 8\nnetworks: [{networks}]\n")
    assert [(problem.path, message in problem.message) for problem in caught.value.problems] == [(path, True)]


@pytest.mark.parametrize(
    "networks",
    [
        "{type: tap, interface: t}, {type: tap, interface: u}",
        "{type: bridge, bridge: b}, {type: bridge, bridge: b}",
        "{type: tap, descriptors: [7, 8], queues: 2}",
        "{type: user, mtu: 1500}, {type: passt, mtu: 65520}",
        "{type: user, model: e1000e}",
    ],
)
def test_the_neighbours_of_what_is_refused_are_fine(networks: str) -> None:
    assert loads(f"name: g\ncpus: 8\nnetworks: [{networks}]\n").warnings == ()


def test_an_encrypted_guests_memory_is_mapped_by_no_passt() -> None:
    with pytest.raises(ProfileError, match=r"networks\.0\.vhost_user: passt would read guest memory"):
        loads("security: sev\nnetworks: [{type: passt, vhost_user: true}]\n")


def test_queues_that_no_vcpu_uses_are_told() -> None:
    [warning] = loads("name: g\ncpus: 2\nnetworks: [{type: tap, interface: t, queues: 4}]\n").warnings
    assert "the guest uses one pair of queues for each vCPU: 2 of 4" in str(warning)
