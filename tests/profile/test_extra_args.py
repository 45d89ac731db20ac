"""The rules hold through qemu.extra_args too, in every spelling that QEMU takes."""

from __future__ import annotations

import json
import subprocess

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.profile.extra_args import FLAGS, OWNED, REFUSED, check_extra_args, parse_value
from sevlaunch.profile.loader import loads

DMA = "disable-legacy=on,iommu_platform=on"


def findings(args: list[str], security: str = "sev") -> list[tuple[str, str]]:
    """Path and message of what is wrong with a profile with these arguments."""
    try:
        loads(f"name: g\nsecurity: {security}\nqemu: {json.dumps({'extra_args': args})}\n")
    except ProfileError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


# Arguments, the index of the one to blame, part of the message.
REFUSED_ARGUMENTS: list[tuple[list[str], int, str]] = [
    # State
    (["-incoming", "defer"], 0, "can't be saved or restored"),
    (["--incoming", "tcp:0:4444"], 0, "can't be saved or restored"),
    (["-loadvm", "tag"], 0, "can't be saved or restored"),
    (["-snapshot"], 0, "can't be saved or restored"),
    (["--snapshot"], 0, "can't be saved or restored"),
    (["-only-migratable"], 0, "can't be saved or restored"),
    (["-drive", "if=none,id=a,file=a.raw,snapshot=on"], 1, "can't be saved or restored"),
    (["-drive", "if=none,id=a,file=a.raw,snapshot=y"], 1, "can't be saved or restored"),
    (["-drive", "snapshot,if=none,id=a,file=a.raw"], 1, "can't be saved or restored"),
    (["-drive", "file=a.raw,if=none,snapshot"], 1, "can't be saved or restored"),
    # Host devices
    (["-device", "vfio-pci,host=01:00.0"], 1, "host devices can't be assigned"),
    (["--device", "vfio-pci,host=01:00.0"], 1, "host devices can't be assigned"),
    (["-device", "driver=vfio-pci,host=01:00.0"], 1, "host devices can't be assigned"),
    (["-device", "host=01:00.0,driver=vfio-pci"], 1, "host devices can't be assigned"),
    (["-device", "e1000e,driver=vfio-pci,host=01:00.0"], 1, "host devices can't be assigned"),
    (["-device", '{"driver":"vfio-pci","host":"01:00.0"}'], 1, "host devices can't be assigned"),
    (["-device", '{"driver":"vfio-\\u0070ci","host":"01:00.0"}'], 1, "host devices can't be assigned"),
    (["-device", "{'driver':'vfio-pci','host':'01:00.0'}"], 1, "can't read this as JSON"),
    (["-device", '{"a":' * 50_000], 1, "can't read this as JSON"),
    (["-device", "vfio-pci-nohotplug,host=01:00.0"], 1, "host devices can't be assigned"),
    (["-device", f"vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0,{DMA}"], 1, "host devices can't be assigned"),
    (["-usb", "-device", "vfio-pci,host=01:00.0"], 2, "host devices can't be assigned"),
    # IDE
    (["-hda", "a.raw"], 0, "makes an IDE disk"),
    (["--hdb", "-a.raw"], 0, "makes an IDE disk"),
    (["-hdc", "a.raw"], 0, "makes an IDE disk"),
    (["-hdd", "a.raw"], 0, "makes an IDE disk"),
    (["-cdrom", "a.iso"], 0, "makes an IDE disk"),
    (["-drive", "if=ide,file=a.raw"], 1, "an IDE disk"),
    (["-drive", "file=a.raw,format=raw"], 1, "an IDE disk"),
    (["-drive", "file=a.iso,media=cdrom"], 1, "an IDE disk"),
    (["-drive", "if=none,file=a.raw,if=ide"], 1, "an IDE disk"),
    (["a.raw"], 0, "makes an IDE disk"),
    (["-usb", "a.raw"], 1, "makes an IDE disk"),
    (["-L", "-folder", "a.raw"], 2, "makes an IDE disk"),
    (["-device", f"virtio-rng-pci,{DMA}", "a.raw"], 2, "makes an IDE disk"),
    (["-device", "ide-hd,drive=a"], 1, "no IDE controller"),
    (["-device", "driver=ide-cd,drive=a"], 1, "no IDE controller"),
    # DMA API
    (["-device", "virtio-blk-pci,drive=a"], 1, "needs the DMA API"),
    (["-device", "virtio-blk,drive=a"], 1, "needs the DMA API"),
    (["-device", "virtio-rng-pci,disable-legacy=on,iommu_platform=off"], 1, "needs the DMA API"),
    (["-device", f"virtio-rng-pci,{DMA},iommu_platform=off"], 1, "needs the DMA API"),
    (["-device", f"virtio-rng-pci,{DMA},noiommu_platform"], 1, "needs the DMA API"),
    (["-device", f"virtio-rng-pci,{DMA},x,,iommu_platform=off"], 1, "needs the DMA API"),
    (["-device", f"virtio-rng-pci,{DMA},disable-modern=on"], 1, "disable-modern=on takes the DMA API away"),
    (["-device", f"virtio-rng-pci,{DMA},disable-modern=y"], 1, "disable-modern=on takes the DMA API away"),
    (["-device", f"virtio-rng-pci,{DMA},disable-modern"], 1, "disable-modern=on takes the DMA API away"),
    (["-device", '{"driver":"virtio-rng-pci","iommu_platform":false}'], 1, "needs the DMA API"),
    (["-device", '{"driver":"virtio-rng-pci"}'], 1, "needs the DMA API"),
    (["-device", "vhost-vsock-pci,guest-cid=5"], 1, "needs the DMA API"),
    (["-device", "virtio-vga"], 1, "needs the DMA API"),
    (["-global", "virtio-net-pci.iommu_platform=off"], 1, "needs the DMA API"),
    (["--global", "virtio-net-pci.iommu_platform=off"], 1, "needs the DMA API"),
    (["-global", "virtio-net-pci.iommu_platform=off,driver=a,property=b"], 1, "needs the DMA API"),
    (["-global", "driver=virtio-net-pci,property=iommu_platform,value=off"], 1, "needs the DMA API"),
    (["-global", "value=off,property=iommu_platform,driver=virtio-device"], 1, "needs the DMA API"),
    (["-global", "virtio-pci.disable-modern=on"], 1, "takes the DMA API away"),
    (["-drive", "if=virtio,file=a.raw"], 1, "makes a device without the DMA API"),
    (["-net", "nic,model=virtio"], 0, "makes devices without the DMA API"),
    (["-nic", "user,model=virtio-net-pci"], 0, "makes devices without the DMA API"),
    (["--nic", "user"], 0, "makes devices without the DMA API"),
    (["-virtfs", "local,path=/,mount_tag=t,security_model=none"], 0, "makes a device without the DMA API"),
    (["-vga", "virtio"], 1, "makes a device without the DMA API"),
    (["-audio", "none,model=virtio"], 1, "makes a device without the DMA API"),
    (["-audio", '{"driver":"none","model":"virtio"}'], 1, "makes a device without the DMA API"),
    (["-set", "device.net0.iommu_platform=off"], 0, "changes what other options say"),
    # What sevlaunch makes
    (["-object", "sev-guest,id=sev1,policy=1"], 1, "is made by sevlaunch: use security"),
    (["-object", "qom-type=sev-snp-guest,id=sev1"], 1, "is made by sevlaunch: use security"),
    (["-object", "id=sev1,qom-type=sev-guest"], 1, "is made by sevlaunch: use security"),
    (["-object", '{"qom-type":"sev-guest","id":"sev1"}'], 1, "is made by sevlaunch: use security"),
    (["-object", "{'qom-type':'sev-guest','id':'sev1'}"], 1, "can't read this as JSON"),
    (["-drive", "if=pflash,file=a.fd"], 1, "pflash is set by sevlaunch"),
    (["-global", "ICH9-LPC.smm=on"], 1, "smm is set by sevlaunch"),
]

NEIGHBOURS = [
    ["-device", f"virtio-rng-pci,{DMA}"],
    ["--device", f"driver=virtio-rng-pci,{DMA}"],
    ["-device", "virtio-rng-pci,disable-legacy=on,iommu_platform=y"],
    ["-device", '{"driver":"virtio-rng-pci","disable-legacy":"on","iommu_platform":true}'],
    ["-device", f"virtio-rng-pci,{DMA},disable-modern=off"],
    ["-device", f"virtio-rng-pci,{DMA},nodisable-modern"],
    ["-device", "e1000e,netdev=n0"],
    ["-device", "nvme,serial=vfio-pci,drive=a"],
    ["-drive", "if=none,id=a,file=a,,if=ide"],
    ["-drive", "if=none,id=a,file=a.raw,snapshot=off"],
    ["-drive", "if=none,id=a,file=a.raw,nosnapshot"],
    ["-blockdev", "driver=file,node-name=a,filename=vfio-pci"],
    ["-object", "rng-random,id=r,filename=/dev/urandom"],
    ["-object", '{"qom-type":"rng-random","id":"r"}'],
    ["-global", "virtio-net-pci.iommu_platform=on"],
    ["-global", "kvm-pit.lost_tick_policy=delay"],
    ["-vga", "std"],
    ["-audio", "none,model=hda"],
    ["-netdev", "user,id=n0"],
    ["-fw_cfg", "name=opt/a,string=b"],
    ["-usb", "-trace", "enable=x"],
    ["-L", "folder"],
    [],
]


@pytest.mark.parametrize("security", ["sev", "sev-es", "sev-snp"])
@pytest.mark.parametrize(
    ("args", "index", "message"), REFUSED_ARGUMENTS, ids=[" ".join(entry[0])[:60] for entry in REFUSED_ARGUMENTS]
)
def test_an_encrypted_guest_can_not_have_the_argument(args: list[str], index: int, message: str, security: str) -> None:
    ((path, found),) = findings(args, security)
    assert path == f"qemu.extra_args.{index}"
    assert message in found


@pytest.mark.parametrize(
    "args", [args for args, _, _ in REFUSED_ARGUMENTS], ids=[" ".join(entry[0])[:60] for entry in REFUSED_ARGUMENTS]
)
def test_without_encryption_the_same_argument_is_fine(args: list[str]) -> None:
    assert findings(args, "none") == []


@pytest.mark.parametrize("args", NEIGHBOURS, ids=" ".join)
def test_the_neighbour_of_what_is_refused_is_fine(args: list[str]) -> None:
    assert findings(args) == []


@pytest.mark.parametrize("security", ["none", "sev"])
@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize("option", OWNED)
def test_what_a_key_of_the_profile_sets_can_not_be_set_again(option: str, dashes: str, security: str) -> None:
    args = [dashes + option] if option in FLAGS else [dashes + option, "x"]
    assert findings(args, security) == [("qemu.extra_args.0", f"-{option} is set by sevlaunch: use {OWNED[option]}")]


def test_a_refused_option_is_found_also_behind_an_option_that_is_not_known() -> None:
    # It may be a flag of a newer QEMU.
    found = dict(check_extra_args(["-new-flag", "-snapshot", "-newer", "-device", "vfio-pci"], encrypted=True))
    assert "can't be saved" in found[1]
    assert "makes an IDE disk" in found[4]


def test_a_value_belongs_to_the_option_before_it_only() -> None:
    assert list(check_extra_args(["-device", "vfio-pci", "-netdev", "vfio-pci"], encrypted=True)) == [
        (1, "vfio-pci: host devices can't be assigned to an encrypted guest: use virtio devices")
    ]


@pytest.mark.parametrize(
    ("text", "implied", "without"),
    [
        (
            "a,b=c,,d,e,noq",
            {"": "a", "b": "c,d", "e": "on", "q": "off"},
            {"a": "on", "b": "c,d", "e": "on", "q": "off"},
        ),
        ("x=1,,,y=2", {"x": "1,", "y": "2"}, {"x": "1,", "y": "2"}),
        ("a,,b,c", {"": "a,b", "c": "on"}, {"a": "on", "b": "on", "c": "on"}),
        ("a=1,a=2", {"a": "2"}, {"a": "2"}),
        ("a==b", {"a": "=b"}, {"a": "=b"}),
        ("", {}, {}),
        ("{not json", {}, {}),
        ("[1]", {"": "[1]"}, {"[1]": "on"}),
        ('{"a": true, "b": 5}', {"a": "on", "b": "5"}, {"a": "on", "b": "5"}),
    ],
)
def test_a_value_is_read_as_qemu_reads_it(text: str, implied: dict[str, str], without: dict[str, str]) -> None:
    assert parse_value(text) == implied
    assert parse_value(text, implied_key=False) == without


def message_of(binary: str, *arguments: str) -> str:
    """What QEMU says about arguments that it ends at."""
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    return done.stderr


WITH_VALUE = ["audio", "device", "drive", "global", "object", "serial", "vga", *({*OWNED, *REFUSED} - FLAGS)]


@pytest.mark.parametrize("option", sorted(WITH_VALUE))
def test_qemu_agrees_that_the_option_has_a_value(option: str, qemu_binary: str) -> None:
    said = message_of(qemu_binary, f"-{option}")
    assert f"-{option}: requires an argument" in said or f"-{option}: invalid option" in said, said


@pytest.mark.parametrize("flag", sorted(FLAGS - {"h", "help", "version", "audio-help"}))
def test_qemu_agrees_that_the_flag_has_no_value(flag: str, qemu_binary: str) -> None:
    said = message_of(qemu_binary, f"-{flag}", "-there-is-no-such-option")
    assert "-there-is-no-such-option: invalid option" in said or f"-{flag}: invalid option" in said, said


@pytest.mark.parametrize(
    "arguments",
    [["-device=nothing"], ["-devic", "nothing"], ["---device", "nothing"], ["-incoming=defer"], ["-DEVICE", "nothing"]],
    ids=" ".join,
)
def test_qemu_takes_no_other_spelling_of_an_option(arguments: list[str], qemu_binary: str) -> None:
    assert "invalid option" in message_of(qemu_binary, *arguments)


@pytest.mark.parametrize(
    "value",
    [
        "nothing",
        "driver=nothing",
        "id=x,driver=nothing",
        "x,driver=nothing",
        '{"driver":"nothing"}',
        "{'driver':'nothing'}",
    ],
)
def test_qemu_takes_each_of_these_spellings_of_a_driver(value: str, qemu_binary: str) -> None:
    common = ["-display", "none", "-nodefaults", "-S", "-machine", "none"]
    assert "'nothing' is not a valid device model name" in message_of(qemu_binary, *common, "--device", value)
