"""Every device has its place on the PCI bus, which no other device takes, gives or moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import render
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from sevlaunch.profile.places import PLACES, capacity, own_sata, root_bus
from tests.conftest import HOSTS, VERSIONS
from tests.plan.asking import ask

# Devices that are on no PCI bus.
ELSEWHERE = (
    *("scsi-hd", "scsi-cd", "ide-hd", "ide-cd", "virtconsole", "virtserialport", "usb-tablet", "isa-serial", "pvpanic"),
    *("tpm-crb", "tpm-tis"),
)
DISKS = ("{path: a.raw}", "{path: b.raw}", "{path: c.raw, bus: virtio-scsi}", "{path: d.raw, bus: sata}")
CDROM = "{path: e.raw, cdrom: true, bus: %s}"
NETWORKS = ("{type: user, mac: '52:54:00:00:00:01'}", "{type: user, mac: '52:54:00:00:00:02'}")
REST = "balloon: true\nvideo: virtio\nconsole: virtio\nguest_agent: true\n"
# What else there is, with devices of the host or helper programs behind it.
MORE = (
    "vsock: auto\nshares: [{path: /srv, tag: s}]\nwatchdog: true\npanic: true\nserial_ports: 2\ntpm: true\n"
    "channels: [{name: org.example.0}]\ndisplay: {type: vnc}\nfirst_boot: true\n"
)


@pytest.fixture
def host() -> Host:
    """The recorded Milan with QEMU 10.0."""
    return Host.load(HOSTS / "milan-qemu-10.0.json")


def profile(
    *, machine: str = "q35", disks: tuple[str, ...] = DISKS, networks: tuple[str, ...] = NETWORKS, rest: str = REST
) -> str:
    """A plain guest under TCG, whose firmware is an image of zeros."""
    lists = f"disks: [{', '.join(disks)}]\nnetworks: [{', '.join(networks)}]\n"
    return f"name: g\nmachine: {machine}\naccel: tcg\nfirmware: {{image: fw.fd}}\n{lists}{rest}"


def devices(plan: Plan) -> list[dict[str, str]]:
    """The parameters of each -device, the driver under ''."""
    return [
        {parameter.key: parameter.value for parameter in option.parameters}
        for option in render(plan)
        if option.name == "-device"
    ]


def places(host: Host, text: str) -> dict[str, tuple[str, ...]]:
    """Where each device is: of disks by their image, of networks by their address, of all others by their driver."""
    plan = resolve(loads(text, file="p.yaml", base=Path("/")), host)
    image = {disk.name: Path(disk.image.path.value).name for disk in plan.storage.disks}
    found = {}
    for device in devices(plan):
        name = image.get(device.get("drive", "")) or device.get("mac") or device.get("id") or device[""]
        found[name] = tuple(device.get(key, "") for key in ("bus", "addr", "scsi-id", "unit"))
    return found


@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize("count", [1, 30])
def test_every_pci_device_says_where_it_is_and_no_two_are_at_one_place(host: Host, machine: str, count: int) -> None:
    more = tuple(f"{{path: more{number}.raw}}" for number in range(count))
    text = profile(machine=machine, disks=(*DISKS, *more), rest=REST + MORE)
    found = devices(resolve(loads(text, base=Path("/")), host))
    on_pci = [device for device in found if device[""] not in ELSEWHERE]
    assert len(on_pci) >= 12 + count
    taken = [(device["bus"], device["addr"]) for device in on_pci]
    assert len(set(taken)) == len(taken)
    buses = {device["id"] for device in on_pci if device[""] in ("pcie-root-port", "pci-bridge")}
    assert {device["bus"] for device in on_pci} - buses == {"pcie.0" if machine == "q35" else "pci.0"}


@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize("bus", ["sata", "virtio-scsi"])
@pytest.mark.parametrize(
    "change",
    [
        {"disks": (CDROM, *DISKS)},
        {"disks": (*DISKS, "{path: more.raw}")},
        {"disks": (*DISKS, "{path: more.raw, bus: sata}")},
        {"disks": DISKS[:-2]},
        {"networks": NETWORKS[:1]},
        {"networks": ()},
        {"rest": ""},
        {"rest": REST + MORE},
    ],
)
def test_a_device_that_comes_or_goes_moves_no_other(host: Host, machine: str, bus: str, change: dict[str, Any]) -> None:
    if "disks" in change:
        change = {"disks": tuple(disk.replace("%s", bus) for disk in change["disks"])}
    before = places(host, profile(machine=machine))
    after = places(host, profile(machine=machine, **change))
    assert before.keys() != after.keys()
    assert {name: before[name] for name in before.keys() & after.keys()} == {
        name: after[name] for name in before.keys() & after.keys()
    }


def test_with_a_slot_of_its_own_a_device_stays_where_one_before_it_goes(host: Host) -> None:
    disks = "{path: a.raw}", "{path: b.raw, slot: 1}", "{path: c.raw, slot: 2}"
    networks = "{type: user}", "{type: user, slot: 1}"
    before = places(host, profile(disks=disks, networks=networks))
    after = places(host, profile(disks=disks[2:], networks=networks[1:]))
    # Among them the network, by the MAC address that is derived from its place.
    assert len(after.keys() & before.keys()) == len(after) == len(before) - 3
    assert after == {name: before[name] for name in after}


def test_the_kinds_share_no_slot_with_each_other_or_with_the_chipset() -> None:
    slots = [slot for kind in PLACES.values() for slot in (*kind.slots, *kind.further)]
    assert len(set(slots)) == len(slots)
    # Host bridge and PIIX3; what -nic and -vga take before; ICH9 and its USB controllers.
    assert not set(slots) & {0, 1, 2, 0x1D, 0x1F}


@pytest.mark.parametrize(("machine", "most"), [("q35", 36), ("pc", 128)])
def test_one_disk_more_than_there_are_places_is_refused_by_name(host: Host, machine: str, most: int) -> None:
    assert host.qemu
    assert capacity(root_bus(host.qemu.machines[machine]), "disk") == most
    full = tuple(f"{{path: d{number}.raw}}" for number in range(most))
    places(host, profile(machine=machine, disks=full))
    with pytest.raises(ProfileError) as caught:
        places(host, profile(machine=machine, disks=(*full, "{path: more.raw}")))
    (problem,) = caught.value.problems
    assert problem.path == f"disks.{most}"
    counted = f"has places 0 to {most - 1} for such devices, and this one is at {most}: use bus: virtio-scsi"
    assert problem.message.endswith(counted)


@pytest.mark.parametrize("machine", ["q35", "pc"])
@pytest.mark.parametrize(
    ("section", "member", "kind", "each"),
    [
        ("networks", "{type: user}", "network", 1),
        ("shares", "{path: /srv/%s, tag: t%s}", "share", 1),
        ("disks", "{path: d%s.raw, bus: sata}", "sata", 6),
    ],
)
def test_the_profile_alone_tells_what_finds_no_place(
    machine: str, section: str, member: str, kind: str, each: int
) -> None:
    root = root_bus(machine)
    most = (capacity(root, kind) + (own_sata(root) if kind == "sata" else 0)) * each
    members = [member.replace("%s", str(number)) for number in range(most + 2)]

    def text(count: int) -> str:
        return f"machine: {machine}\nmemory: 1G\n{section}: [{', '.join(members[:count])}]\n"

    loads(text(most), file="p.yaml", base=Path("/"))
    with pytest.raises(ProfileError) as caught:
        loads(text(most + 2), file="p.yaml", base=Path("/"))
    assert [problem.path for problem in caught.value.problems] == [f"{section}.{most}", f"{section}.{most + 1}"]


def test_distributions_machine_types_of_q35_are_pcie() -> None:
    assert root_bus("pc-q35-rhel9.4.0") == "pcie.0"
    assert root_bus("pc-i440fx-jammy") == "pci.0"


def test_the_seventh_sata_disk_is_on_another_controller_and_a_cdrom_counts_from_the_end(host: Host) -> None:
    disks = (CDROM % "sata", *(f"{{path: d{number}.raw, bus: sata}}" for number in range(7)))
    found = places(host, profile(disks=disks))
    assert [found[f"d{number}.raw"][0] for number in range(7)] == [
        *(f"ide.{port}" for port in range(5)),
        "sata0.0",
        "sata0.1",
    ]
    assert found["e.raw"][0] == "ide.5"
    # i440fx has no SATA of its own.
    assert places(host, profile(machine="pc"))["d.raw"][0] == "sata0.0"


def test_pc_takes_four_ide_disks_each_on_a_unit_of_its_own(host: Host) -> None:
    disks = tuple(f"{{path: d{number}.raw, bus: ide}}" for number in range(5))
    found = places(host, profile(machine="pc", disks=disks[:4]))
    assert [found[f"d{number}.raw"][::3] for number in range(4)] == [
        ("ide.0", "0"),
        ("ide.0", "1"),
        ("ide.1", "0"),
        ("ide.1", "1"),
    ]
    with pytest.raises(ProfileError, match="has places 0 to 3 for such devices, and this one is at 4"):
        places(host, profile(machine="pc", disks=disks))


def of_root_bus(answer: Any) -> dict[str, int]:
    """The slots of the devices that have a name, by query-pci."""
    return {device["qdev_id"]: device["slot"] for device in answer[0]["devices"] if device["qdev_id"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_qemu_has_each_device_where_the_plan_says_and_room_for_those_of_extra_args(
    version: str, machine: str, base: Path
) -> None:
    extra = '["-device", "virtio-rng-pci,id=mine", "-nic", "user,model=e1000", "-vga", "std", "-usb"]'
    text = profile(machine=machine, rest=f"{REST}qemu: {{extra_args: {extra}}}\n")
    (answer,) = ask(version, base, text.replace("video: virtio\n", ""), ("query-pci", {}))
    found = of_root_bus(answer)
    assert found.pop("mine") in (1, 2, 3, 4, 5)
    assert found == {
        "disk0-device": 0x15,
        "disk1-device": 0x16,
        "scsi0": 0x0A,
        "net0-device": 0x10,
        "net1-device": 0x11,
        "console-bus": 0x08,
        "agent-bus": 0x09,
        **({"sata0": 0x0B} if machine == "pc" else {}),
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_qemu_takes_more_disks_than_its_root_bus_has_slots(version: str, machine: str, base: Path) -> None:
    disks = tuple(f"{{path: d{number}.raw}}" for number in range(36))
    names = [f"/machine/peripheral/disk{number}-device" for number in (0, 3, 4, 11, 35)]
    asked = [("qom-get", {"path": name, "property": key}) for name in names for key in ("parent_bus", "addr")]
    answers = ask(version, base, profile(machine=machine, disks=disks), *asked)
    # The bus's path ends in the name of the device that makes it, and in the bus's own.
    buses = ["pci-19.0", "pci-19.7", "pci-1c.7"] if machine == "q35" else ["pci-19.0", "pci-19.0", "pci-1a.0"]
    root = "pcie.0" if machine == "q35" else "pci.0"
    assert [answer.split("/")[-1] for answer in answers[::2]] == [root, root, *buses]
    inner = [0, 0, 0] if machine == "q35" else [1, 8, 1]
    assert [devfn >> 3 for devfn in answers[1::2]] == [0x15, 0x18, *inner]
