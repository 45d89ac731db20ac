"""The rules hold through qemu.extra_args too, in every spelling that QEMU takes."""

from __future__ import annotations

import json

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.profile.extra_args import check_extra_args
from sevlaunch.profile.loader import loads
from sevlaunch.profile.option_values import parse_value
from sevlaunch.profile.qemu_options import OPTIONS, OWNED

DMA = "disable-legacy=on,iommu_platform=on"
ENCRYPTED = ["sev", "sev-es", "sev-snp"]


def findings(args: list[str], security: str = "sev", accel: str = "auto") -> list[tuple[str, str]]:
    """Path and message of what is wrong with a profile with these arguments."""
    try:
        loads(f"name: g\naccel: {accel}\nsecurity: {security}\nqemu: {json.dumps({'extra_args': args})}\n")
    except ProfileError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def warnings(args: list[str], security: str = "sev") -> list[tuple[str, str]]:
    """Path and message of what its user should know of a profile with these arguments."""
    loaded = loads(f"name: g\nsecurity: {security}\nqemu: {json.dumps({'extra_args': args})}\n")
    return [(warning.path, warning.message) for warning in loaded.warnings]


Sample = tuple[list[str], int, str]

# Arguments, the index of the one to blame, part of the message: refused for every guest.
REFUSED_ALWAYS: list[Sample] = [
    # Other guests' state, and writing where nothing should be written
    (["-incoming", "defer"], 0, "sevlaunch starts guests afresh"),
    (["--incoming", "tcp:0:4444"], 0, "sevlaunch starts guests afresh"),
    (["-snapshot"], 0, "would be written all the same"),
    (["--snapshot"], 0, "would be written all the same"),
    # Another monitor
    (["-serial", "mon:stdio"], 1, "is another monitor"),
    (["--serial", "mon:tcp::4444,server,nowait"], 1, "is another monitor"),
    (["-parallel", "mon:stdio"], 1, "is another monitor"),
    (["-debugcon", "mon:unix:/tmp/s,server=on,wait=off"], 1, "is another monitor"),
    (["-object", "monitor-qmp,id=m,chardev=c"], 1, "is another monitor"),
    (["-object", "qom-type=monitor-hmp,id=m,chardev=c"], 1, "is another monitor"),
    (["-object", '{"qom-type":"monitor-hmp","id":"m","chardev":"c"}'], 1, "is another monitor"),
    # Values that are missing: the next option would be taken for one
    (["-D"], 0, "-D has no value behind it"),
    (["-usb", "--device"], 1, "-device has no value behind it"),
    (["-monitor"], 0, "-monitor has no value behind it"),
    (["-D", "-S"], 1, "does -D lack its value?"),
    (["-D", "-usb"], 1, "does -D lack its value?"),
    # What is no option
    (["-device usb-tablet,id=t"], 0, 'one argument, and QEMU wants two: write "-device", "usb-tablet,id=t"'),
    (["-device=usb-tablet"], 0, 'write "-device", "usb-tablet"'),
    (["--rtc base=utc"], 0, 'write "-rtc", "base=utc"'),
    (["-devic", "e1000e"], 0, "is no option of QEMU"),
    (["---device", "e1000e"], 0, "is no option of QEMU"),
    (["-DEVICE", "e1000e"], 0, "is no option of QEMU"),
    (["-writeconfig", "a"], 0, "is no option of QEMU"),
    (["-"], 0, "is no option of QEMU"),
    (["--"], 0, "is no option of QEMU"),
    # What ends QEMU, or what it refuses for reasons of sevlaunch's own
    (["-help"], 0, "makes QEMU print, and end"),
    (["-dump-vmstate", "a.json"], 0, "makes QEMU print, and end"),
    (["-device", "help"], 1, "makes QEMU print, and end"),
    (["-device", "virtio-rng-pci,help"], 1, "makes QEMU print, and end"),
    (["-netdev", "?"], 1, "makes QEMU print, and end"),
    (["-add-fd", "fd=9,set=1"], 0, "QEMU inherits none"),
    (["-netdev", "tap,id=n0,fd=9"], 1, "QEMU inherits none"),
    (["-chardev", "socket,id=c,fd=9"], 1, "QEMU inherits none"),
    (["-netdev", "tap,id=n0,ifname=tap0"], 1, "script and downscript of tap: QEMU would start a program"),
    (["-netdev", '{"type":"tap","id":"n0","ifname":"tap0"}'], 1, "script and downscript of tap"),
    (["-netdev", "tap,id=n0,ifname=tap0,script=no"], 1, "downscript of tap: QEMU would start a program"),
    (["-netdev", "bridge,id=n0,br=br0"], 1, "QEMU would start a program"),
    (["-netdev", "tap,id=n0,helper=/bin/true"], 1, "QEMU would start a program"),
    (["-netdev", "user,id=n0,smb=/srv"], 1, "QEMU would start a program"),
    (["-netdev", "user,id=n0,guestfwd=tcp:10.0.2.100:1234-cmd:cat"], 1, "QEMU would start a program"),
    (["-netdev", "passt,id=n0"], 1, "QEMU would start a program"),
    (["-display", "spice-app"], 1, "QEMU would start a program"),
    (["-drive", "if=scsi,file=a.raw"], 1, "a controller that a PC does not have"),
    (["-drive", "if=sd,file=a.raw"], 1, "a controller that a PC does not have"),
    (["-sd", "a.raw"], 0, "a controller that a PC does not have"),
    (["-mtdblock", "a.raw"], 0, "a controller that a PC does not have"),
    (["-numa", "node,nodeid=0,cpus=0-1,memdev=m0"], 0, "is set by sevlaunch: use numa"),
    (["-device", "pc-dimm,memdev=m0"], 1, "memory beside memory.size"),
    (["-device", "virtio-mem-pci,memdev=m0,disable-legacy=on,iommu_platform=on"], 1, "memory beside memory.size"),
    (["-device", "xen-disk"], 1, "is for Xen"),
    (["-xen-attach"], 0, "is for Xen"),
    (["-usb", "-usbdevice", "disk:a.raw"], 2, "use -device usb-..."),
    # What sevlaunch makes
    (["-object", "sev-guest,id=sev1,policy=1"], 1, "is made by sevlaunch: use security"),
    (["-object", "qom-type=sev-snp-guest,id=sev1"], 1, "is made by sevlaunch: use security"),
    (["-object", "id=sev1,qom-type=sev-guest"], 1, "is made by sevlaunch: use security"),
    (["-object", '{"qom-type":"sev-guest","id":"sev1"}'], 1, "is made by sevlaunch: use security"),
    (["-object", "{'qom-type':'sev-guest','id':'sev1'}"], 1, "can't read this as JSON"),
    (["-object", "igvm-cfg,id=i,file=a"], 1, "is firmware, which sevlaunch sets"),
    (["-drive", "if=pflash,file=a.fd"], 1, "pflash is set by sevlaunch"),
    (["-action", "reboot=reset"], 1, "reboot is set by sevlaunch: use on_reboot"),
    (["-action", "panic=none,reboot=shutdown"], 1, "reboot is set by sevlaunch: use on_reboot"),
    (["-device", "{'driver':'vfio-pci','host':'01:00.0'}"], 1, "can't read this as JSON"),
    (["-device", '{"a":' * 50_000], 1, "can't read this as JSON"),
]

# Refused for an encrypted guest, and fine for an ordinary one.
REFUSED_ENCRYPTED: list[Sample] = [
    # State
    (["-loadvm", "tag"], 0, "can't be saved or restored"),
    (["-only-migratable"], 0, "can't be saved or restored"),
    (["-drive", "if=none,id=a,file=a.raw,snapshot=on"], 1, "can't be saved or restored"),
    (["-drive", "if=none,id=a,file=a.raw,snapshot=y"], 1, "can't be saved or restored"),
    (["-drive", "snapshot,if=none,id=a,file=a.raw"], 1, "can't be saved or restored"),
    (["-drive", "file=a.raw,if=none,snapshot"], 1, "can't be saved or restored"),
    # Host devices
    (["-device", "vfio-pci,host=01:00.0"], 1, "can't assign host devices"),
    (["--device", "vfio-pci,host=01:00.0"], 1, "can't assign host devices"),
    (["-device", "driver=vfio-pci,host=01:00.0"], 1, "can't assign host devices"),
    (["-device", "host=01:00.0,driver=vfio-pci"], 1, "can't assign host devices"),
    (["-device", "e1000e,driver=vfio-pci,host=01:00.0"], 1, "can't assign host devices"),
    (["-device", '{"driver":"vfio-pci","host":"01:00.0"}'], 1, "can't assign host devices"),
    (["-device", '{"driver":"vfio-\\u0070ci","host":"01:00.0"}'], 1, "can't assign host devices"),
    (["-device", "vfio-pci-nohotplug,host=01:00.0"], 1, "can't assign host devices"),
    (["-device", f"vhost-vdpa-device-pci,vhostdev=/dev/vhost-vdpa-0,{DMA}"], 1, "can't assign host devices"),
    (["-usb", "-device", "vfio-pci,host=01:00.0"], 2, "can't assign host devices"),
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
    (["-global", "ICH9-LPC.smm=on"], 1, "smm is set by sevlaunch"),
    # Past the DMA API
    (["-fda", "a.img"], 0, "goes past the DMA API"),
    (["-fdb", "a.img"], 0, "goes past the DMA API"),
    (["-drive", "if=floppy,file=a.img"], 1, "goes past the DMA API"),
    (["-device", "floppy,drive=a"], 1, "goes past the DMA API"),
    (["-device", "isa-fdc,driveA=a"], 1, "goes past the DMA API"),
    (["-device", "virtio-rng-pci,iommu_platform=on"], 1, "add disable-legacy=on"),
    (["-device", "virtio-scsi,iommu_platform=on"], 1, "add disable-legacy=on"),
    # Host devices
    (["-netdev", "vhost-vdpa,id=n0,vhostdev=/dev/vhost-vdpa-0"], 1, "can't assign host devices"),
    (
        ["-netdev", '{"type":"vhost-vdpa","id":"n0","vhostdev":"/dev/vhost-vdpa-0"}'],
        1,
        "can't assign host devices",
    ),
    (["-device", "vfio-user-pci,socket=/tmp/s"], 1, "can't assign host devices"),
    (["-device", "x-pci-proxy-dev"], 1, "reads guest memory"),
    (["-device", f"vhost-user-fs-pci,chardev=c,tag=t,{DMA}"], 1, "reads guest memory"),
    (["-device", '{"driver":"vhost-user-blk-pci","chardev":"c"}'], 1, "reads guest memory"),
    (["-netdev", "vhost-user,id=n0,chardev=c"], 1, "reads guest memory"),
    # Debuggers
    (["-s"], 0, "lets a program on the host read and change the guest"),
    (["-gdb", "tcp::1234"], 0, "lets a program on the host read and change the guest"),
    (["-qtest", "unix:/tmp/s"], 0, "lets a program on the host read and change the guest"),
    (["-object", "qtest,id=q,chardev=c"], 1, "lets a program on the host read and change the guest"),
    (["-plugin", "file=/usr/lib/a.so"], 0, "watches the guest"),
    # Code outside the measurement
    (["-device", "e1000e,netdev=n0"], 1, "has an option ROM"),
    (["-device", '{"driver":"rtl8139","netdev":"n0"}'], 1, "has an option ROM"),
    (["-device", f"virtio-net-pci,netdev=n0,{DMA}"], 1, "has an option ROM"),
    (["-device", "e1000e,netdev=n0,romfile=/srv/ipxe.rom"], 1, "romfile=/srv/ipxe.rom runs code"),
    (["-device", '{"driver":"VGA","romfile":"a.rom"}'], 1, "romfile=a.rom runs code"),
    (["-global", "e1000e.romfile=/srv/ipxe.rom"], 1, "romfile=/srv/ipxe.rom runs code"),
    (["-option-rom", "a.rom"], 0, "runs code that no measurement has in it"),
    (["-device", "loader,file=a,addr=0x1000"], 1, "runs code that no measurement has in it"),
    (["-device", "guest-loader,kernel=a,addr=0x1000"], 1, "runs code that no measurement has in it"),
    (["-shim", "a.efi"], 0, "runs code that no measurement has in it"),
    (["-icount", "shift=1"], 1, "QEMU refuses it with KVM"),
]

# Fine for every guest, with a word about what it does.
WARNED: list[Sample] = [
    (["-no-shutdown"], 0, "keeps QEMU when the guest has powered off"),
    (["-action", "shutdown=pause"], 1, "keeps QEMU when the guest has powered off"),
    (["-boot", "d"], 1, "does not look at the letters"),
    (["-boot", "once=d,menu=on"], 1, "does not look at the letters"),
    (["-compat", "deprecated-input=reject"], 0, "sevlaunch's own commands"),
    (["-vnc", ":1"], 1, "to all who reach this host"),
    (["-vnc", "0.0.0.0:1"], 1, "to all who reach this host"),
    (["-display", "vnc=:1"], 1, "to all who reach this host"),
    (["-spice", "port=5900,disable-ticketing=on"], 1, "to all who reach this host"),
    (["-object", "secret,id=s,data=swordfish"], 1, "every user of this host can read"),
    (["-iscsi", "user=me,password=swordfish"], 1, "every user of this host can read"),
    (["FILES/a.raw"], 0, "stands after no option, and becomes a disk"),
    (["-usb", "FILES/a.raw"], 1, "stands after no option, and becomes a disk"),
]
# Refused for an encrypted guest, and for an ordinary one a word.
WARNED_ORDINARY: list[Sample] = [
    (["-s"], 0, "lets every program that reaches it read and change the guest"),
    (["-gdb", "tcp::1234"], 0, "lets every program that reaches it read and change the guest"),
    (["-qtest", "unix:FILES/s"], 0, "lets every program that reaches it read and change the guest"),
]
WARNED_ENCRYPTED: list[Sample] = [
    (["-tpmdev", "emulator,id=t,chardev=c"], 0, "the host"),
    (["-object", "memory-backend-ram,id=m0,size=1M"], 1, "limits"),
    (
        ["-object", '{"qom-type":"memory-backend-memfd","id":"m0","size":1048576}'],
        1,
        "limits",
    ),
    (["-acpitable", "file=a"], 0, "no measurement"),
]

# Files that QEMU needs for a sample are made in the folder FILES.
NEIGHBOURS = [
    ["-device", f"virtio-rng-pci,{DMA}"],
    ["--device", f"driver=virtio-rng-pci,{DMA}"],
    ["-device", "virtio-rng-pci,disable-legacy=on,iommu_platform=y"],
    ["-device", '{"driver":"virtio-rng-pci","disable-legacy":"on","iommu_platform":true}'],
    ["-device", f"virtio-rng-pci,{DMA},disable-modern=off"],
    ["-device", f"virtio-rng-pci,{DMA},nodisable-modern"],
    ["-device", "virtio-rng-pci-non-transitional,iommu_platform=on"],
    ["-device", "virtio-gpu-pci,iommu_platform=on"],
    ["-device", "pcie-root-port,id=rp0,chassis=7", "-device", "virtio-rng-pci,iommu_platform=on,bus=rp0"],
    ["-device", "e1000e,romfile="],
    ["-device", '{"driver":"e1000e","romfile":""}'],
    ["-device", f"virtio-net-pci,romfile=,{DMA}"],
    ["-drive", "if=none,id=a,format=raw,file=FILES/a,,if=ide"],
    ["-drive", "if=none,id=a,file=FILES/a.raw,format=raw,snapshot=off"],
    ["-drive", "if=none,id=a,file=FILES/a.raw,format=raw,nosnapshot"],
    ["-drive", "if=none,id=a,file=FILES/a.raw,format=raw", "-device", "nvme,serial=vfio-pci,drive=a"],
    # On q35 these are SATA disks and CD-ROM drives, which use the DMA API.
    ["-drive", "if=none,id=a,file=FILES/a.raw,format=raw", "-device", "ide-hd,drive=a,bus=ide.0"],
    ["-device", "ide-cd,bus=ide.1"],
    ["-hda", "FILES/a.raw"],
    ["-cdrom", "FILES/a.raw"],
    ["-drive", "file=FILES/a.raw,format=raw"],
    ["-drive", "if=ide,file=FILES/a.raw,format=raw,media=cdrom"],
    ["-usb", "-usbdevice", "tablet"],
    ["-blockdev", "driver=file,node-name=a,filename=FILES/vfio-pci"],
    ["-blockdev", '{"driver":"file","node-name":"a","filename":"FILES/vfio-pci"}'],
    ["-object", "rng-random,id=r,filename=/dev/urandom"],
    ["-object", '{"qom-type":"rng-random","id":"r","filename":"/dev/urandom"}'],
    ["-global", "virtio-net-pci.iommu_platform=on"],
    ["-global", "e1000e.romfile="],
    ["-global", "kvm-pit.lost_tick_policy=delay"],
    ["-vga", "std"],
    ["-audio", "none,model=hda"],
    ["-netdev", "user,id=n0,hostfwd=tcp:127.0.0.1:0-:22"],
    ["-fw_cfg", "name=opt/a,string=b"],
    ["-smbios", "type=11,value=a"],
    ["-usb", "-trace", "enable=x"],
    ["-L", "FILES"],
    ["-D", "FILES/log", "-d", "guest_errors"],
    ["-serial", "null", "-parallel", "null", "-debugcon", "null"],
    ["-chardev", "null,id=mon", "-device", "isa-debugcon,chardev=mon,iobase=0x402"],
    ["-action", "panic=exit-failure,watchdog=pause"],
    ["-vnc", "unix:FILES/vnc"],
    ["-vnc", "none"],
    ["-nographic"],
    ["-nodefaults", "-no-user-config"],
    ["-rtc", "base=localtime"],
    ["-boot", "menu=on"],
    [],
]


def ids(samples: list[Sample]) -> list[str]:
    """Names for pytest."""
    return [" ".join(sample[0])[:60] for sample in samples]


@pytest.mark.parametrize("security", ["none", *ENCRYPTED])
@pytest.mark.parametrize(("args", "index", "message"), REFUSED_ALWAYS, ids=ids(REFUSED_ALWAYS))
def test_no_guest_can_have_the_argument(args: list[str], index: int, message: str, security: str) -> None:
    path, found = findings(args, security)[-1]
    assert path == f"qemu.extra_args.{index}"
    assert message in found


@pytest.mark.parametrize("security", ENCRYPTED)
@pytest.mark.parametrize(("args", "index", "message"), REFUSED_ENCRYPTED, ids=ids(REFUSED_ENCRYPTED))
def test_an_encrypted_guest_can_not_have_the_argument(args: list[str], index: int, message: str, security: str) -> None:
    ((path, found),) = findings(args, security)
    assert path == f"qemu.extra_args.{index}"
    assert message in found


@pytest.mark.parametrize("args", [args for args, _, _ in REFUSED_ENCRYPTED], ids=lambda args: " ".join(args)[:60])
def test_without_encryption_the_same_argument_is_fine(args: list[str]) -> None:
    assert findings(args, "none", accel="tcg") == []


@pytest.mark.parametrize("security", ["none", "sev"])
@pytest.mark.parametrize(("args", "index", "message"), WARNED, ids=ids(WARNED))
def test_a_word_about_what_an_argument_does(args: list[str], index: int, message: str, security: str) -> None:
    ((path, found),) = warnings(args, security)
    assert path == f"qemu.extra_args.{index}"
    assert message in found


@pytest.mark.parametrize(("args", "index", "message"), WARNED_ORDINARY, ids=ids(WARNED_ORDINARY))
def test_a_word_about_what_an_encrypted_guest_can_not_have(args: list[str], index: int, message: str) -> None:
    ((path, found),) = warnings(args, "none")
    assert path == f"qemu.extra_args.{index}"
    assert message in found


def test_of_two_arguments_in_one_it_is_said_at_once_what_else_is_wrong_with_them() -> None:
    found = findings(["-device e1000e,netdev=n0"])
    assert [path for path, _ in found] == ["qemu.extra_args.0"] * 2
    assert 'write "-device", "e1000e,netdev=n0"' in found[0][1]
    assert "e1000e has an option ROM" in found[1][1]
    assert len(findings(["-device e1000e,netdev=n0"], "none")) == 1
    assert len(findings(["-usb on"])) == 1


@pytest.mark.parametrize(("args", "index", "message"), WARNED_ENCRYPTED, ids=ids(WARNED_ENCRYPTED))
def test_a_word_about_what_an_argument_does_to_an_encrypted_guest(args: list[str], index: int, message: str) -> None:
    ((path, found),) = warnings(args)
    assert path == f"qemu.extra_args.{index}"
    assert message in found
    assert warnings(args, "none") == []


def test_with_tcg_or_kvm_it_is_known_whether_instructions_can_be_counted() -> None:
    assert findings(["-icount", "shift=1"], "none", accel="tcg") == []
    assert "QEMU refuses it with KVM" in findings(["-icount", "shift=1"], "none", accel="kvm")[0][1]
    assert "QEMU refuses it with KVM" in warnings(["-icount", "shift=1"], "none")[0][1]


@pytest.mark.parametrize("args", NEIGHBOURS, ids=" ".join)
def test_the_neighbour_of_what_is_refused_is_fine(args: list[str]) -> None:
    assert findings(args) == []
    assert warnings(args) == []


@pytest.mark.parametrize("security", ["none", "sev"])
@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize("option", OWNED)
def test_what_a_key_of_the_profile_sets_can_not_be_set_again(option: str, dashes: str, security: str) -> None:
    args = [dashes + option, "x"] if OPTIONS[option].takes_value else [dashes + option]
    assert findings(args, security) == [("qemu.extra_args.0", f"-{option} is set by sevlaunch: use {OWNED[option]}")]


def test_a_refused_option_is_found_also_behind_an_option_that_is_not_known() -> None:
    args = ["-new-flag", "-snapshot", "-newer", "a.raw", "-device", "vfio-pci"]
    found = {finding.position: finding.message for finding in check_extra_args(args, encrypted=True)}
    assert "is no option of QEMU" in found[0]
    assert "would be written" in found[1]
    assert "is no option of QEMU" in found[2]
    assert "host devices" in found[5]
    assert len(found) == 4


def test_a_value_belongs_to_the_option_before_it_only() -> None:
    found = list(check_extra_args(["-device", "vfio-pci", "-trace", "vfio-pci"], encrypted=True))
    assert [finding.position for finding in found] == [1]


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
