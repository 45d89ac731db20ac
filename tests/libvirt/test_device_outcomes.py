"""What becomes of each device of a domain."""

from __future__ import annotations

from typing import Any

import pytest

from tests.libvirt.support import DISK, NIC, domain, value

DEVICES: dict[str, list[tuple[str, Any]]] = {
    "disks.0.bus": [("<disk type='file'><source file='/d'/><target dev='sda' bus='scsi'/></disk>", "virtio-scsi")],
    "disks.0.aio": [
        (DISK.format(" io='io_uring'"), "io_uring"),
        (DISK.format(" io='native' cache='none'"), "native"),
        (DISK.format(" io='native'"), "threads"),
    ],
    "disks.0.iothread": [(DISK.format(" iothread='2'"), "io2"), (DISK.format(""), None)],
    "disks.0.queues": [(DISK.format(" queues='4'"), 4)],
    "disks.0.detect_zeroes": [
        (DISK.format(" detect_zeroes='on'"), True),
        (DISK.format(" detect_zeroes='unmap' discard='unmap'"), "unmap"),
        (DISK.format(" detect_zeroes='unmap'"), True),
        (DISK.format(" detect_zeroes='off'"), False),
    ],
    "disks.0.logical_block_size": [
        (DISK.format("").replace("</disk>", "<blockio logical_block_size='4096'/></disk>"), 4096)
    ],
    "disks.0.throttle.bytes_read": [
        (
            DISK.format("").replace("</disk>", "<iotune><read_bytes_sec>1000000</read_bytes_sec></iotune></disk>"),
            1000000,
        )
    ],
    "disks.0.format": [(DISK.format(""), "raw"), (DISK.replace("raw", "qcow2").format(""), "qcow2")],
    "disks.0.cache": [(DISK.format(" cache='none'"), "none"), (DISK.format(" cache='default'"), "writeback")],
    "disks.1.discard": [
        (
            DISK.format("")
            + "<disk type='file' device='cdrom'><source file='/c'/><target dev='sda' bus='scsi'/></disk>",
            True,
        )
    ],
    "disks.0.discard": [
        (DISK.format(""), False),
        (DISK.format(" discard='ignore'"), False),
        (DISK.format(" discard='unmap'"), True),
    ],
    "iommu_platform": [
        (DISK.format(" iommu='on'"), True),
        (DISK.format(""), False),
        (DISK.format(" iommu='off'"), False),
    ],
    "disks.1.iommu_platform": [
        (DISK.format(" iommu='on'") + DISK.format("").replace("'/d'", "'/e'"), False),
        (DISK.format("") + DISK.format("").replace("'/d'", "'/e'"), None),
    ],
    "disks.0.image": [(DISK.format("").replace("</disk>", "<transient/></disk>"), "/d"), (DISK.format(""), None)],
    "disks.0.overlay": [(DISK.format("").replace("</disk>", "<transient shareBacking='yes'/></disk>"), "ephemeral")],
    "disks.0.read_only": [(DISK.format("").replace("</disk>", "<readonly/><transient/></disk>"), True)],
    "disks.0.serial": [(DISK.format("").replace("</disk>", "<serial>ABC</serial></disk>"), "ABC")],
    "disks.0.path": [("<disk type='block'><source dev='/dev/vg/a'/><target dev='vda'/></disk>", "/dev/vg/a")],
    "networks.0.type": [
        (NIC.format(""), "user"),
        (NIC.format("<backend type='passt'/>"), "passt"),
        ("<interface type='vhostuser'><source type='unix' path='/s' mode='client'/></interface>", "user"),
        ("<interface type='bridge'><source bridge='br0'/></interface>", "bridge"),
        ("<interface type='network'><source network='default'/></interface>", "bridge"),
        ("<interface type='network'><source network='lab' bridge='virbr7'/></interface>", "bridge"),
        ("<interface type='network'><source network='lab'/></interface>", "user"),
        ("<interface type='direct'><source dev='eth0' mode='vepa'/></interface>", "macvtap"),
        ("<interface type='ethernet'><target dev='tap0' managed='no'/></interface>", "tap"),
    ],
    "networks.0.interface": [
        ("<interface type='direct'><source dev='eth0' mode='vepa'/></interface>", "macvtap0"),
        ("<interface type='direct'><source dev='eth0'/><target dev='mv1'/></interface>", "mv1"),
    ],
    "networks.0.queues": [
        ("<interface type='direct'><source dev='e'/><model type='virtio'/><driver queues='4'/></interface>", 4),
        (
            "<interface type='ethernet'><target dev='t' managed='no'/><model type='virtio'/><driver queues='1'/>"
            "</interface>",
            1,
        ),
    ],
    "networks.0.vhost_user": [
        ("<interface type='vhostuser'><backend type='passt'/><model type='virtio'/></interface>", True),
    ],
    "networks.0.mtu": [(NIC.format("<mtu size='1400'/>"), 1400), (NIC.format("<mtu size='9000'/>"), None)],
    "networks.0.model": [("<interface type='user'><model type='e1000e'/></interface>", "e1000e")],
    "networks.1.mac": [(NIC.format("<mac address='52:54:00:00:00:01'/>") * 2, None)],
    "networks.0.vhost": [
        ("<interface type='bridge'><source bridge='b'/><model type='virtio'/><driver name='vhost'/></interface>", True),
        ("<interface type='ethernet'><target dev='tap0' managed='no'/><driver name='vhost'/></interface>", True),
        ("<interface type='ethernet'><target dev='tap0' managed='no'/><driver name='qemu'/></interface>", False),
    ],
    "networks.0.bridge": [("<interface type='network'><source network='default'/></interface>", "virbr0")],
    "networks.0.forward": [
        (
            NIC.format(
                "<backend type='passt'/><portForward proto='tcp' address='127.0.0.1'>"
                "<range start='2022' to='22'/><range start='80' end='81'/></portForward>"
            ),
            ["tcp:127.0.0.1:2022:22", "tcp:127.0.0.1:80:80", "tcp:127.0.0.1:81:81"],
        )
    ],
    "console": [
        ("<serial type='pty'/>", "serial"),
        ("<console type='pty'><target type='virtio'/></console>", "virtio"),
        ("<console type='pty'><target type='serial'/></console>", "serial"),
    ],
    "vsock": [
        ("<vsock model='virtio'><cid auto='yes' address='3'/></vsock>", "auto"),
        ("<vsock model='virtio'><cid auto='no' address='7'/></vsock>", 7),
    ],
    "rng": [("", None)],
    "balloon": [("<memballoon model='none'/>", None), ("<memballoon model='virtio'/>", {"iommu_platform": None})],
    "video.type": [
        ("<video><model type='vga' vram='16384'/></video>", "std"),
        ("<video><model type='cirrus'/></video>", "std"),
        ("<video><model type='virtio' heads='2'/></video>", "virtio"),
        ("<video><model type='vga'/></video><video><model type='qxl' primary='yes'/></video>", "qxl"),
    ],
    "display.type": [
        ("<graphics type='spice' autoport='yes'/>", "spice"),
        ("<graphics type='vnc' port='-1'/>", "vnc"),
        ("<graphics type='sdl'/>", "none"),
        ("<graphics type='vnc'/><video><model type='none'/></video>", "none"),
    ],
    "display.address": [
        ("<graphics type='vnc' port='5903' listen='127.0.0.1'/>", "127.0.0.1"),
        ("<graphics type='vnc' port='5903'><listen type='address' address='::1'/></graphics>", "::1"),
        ("<graphics type='vnc' autoport='yes'><listen type='address' address='::1'/></graphics>", None),
        ("<graphics type='vnc' port='5903' listen='127.0.0.1' passwd='x'/>", None),
        ("<graphics type='vnc' port='5903' listen='localhost'/>", None),
    ],
    "display.port": [("<graphics type='vnc' port='5903' listen='127.0.0.1'/>", 5903)],
    "display.tablet": [
        ("<graphics type='vnc'/>", False),
        ("<graphics type='vnc'/><input type='tablet' bus='usb'/>", True),
    ],
    "channels.0.name": [
        ("<channel type='unix'><target type='virtio' name='a.b'/></channel>", "a.b"),
        (
            "<graphics type='spice'/><channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/>"
            "</channel>",
            "com.redhat.spice.0",
        ),
    ],
    "channels": [
        ("<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>", []),
        ("<channel type='unix'><target type='guestfwd' address='10.0.2.1' port='1'/></channel>", []),
        ("<channel type='unix'><target type='virtio'/></channel>", []),
        ("<channel type='file'><target type='virtio' name='a'/></channel>", []),
    ],
    "tpm": [
        ("<tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>", {"model": "crb"}),
        ("<tpm><backend type='emulator'/></tpm>", {"model": "tis"}),
        ("<tpm model='tpm-tis'><backend type='emulator' version='1.2'/></tpm>", None),
        ("<tpm model='tpm-tis'><backend type='passthrough'/></tpm>", None),
    ],
    "shares.0.path": [
        (
            "<filesystem type='mount'><driver type='virtiofs'/><source dir='/s,source=/etc'/><target dir='t'/>"
            "</filesystem>",
            "/s,source=/etc",
        )
    ],
    "shares.0.tag": [
        ("<filesystem type='mount'><driver type='virtiofs'/><source dir='/s'/><target dir='t'/></filesystem>", "t")
    ],
    "boot.order": [
        (
            DISK.format("").replace("</disk>", "<boot order='2'/></disk>") + NIC.format("<boot order='1'/>"),
            ["net0", "disk0"],
        )
    ],
    "qemu.binary": [
        ("<emulator>/usr/bin/qemu-system-x86_64</emulator>", "auto"),
        ("<emulator>/opt/qemu</emulator>", "/opt/qemu"),
    ],
    "qemu.extra_args": [
        ("<input type='keyboard' bus='usb'/>", ["-device", "qemu-xhci,id=usb", "-device", "usb-kbd,bus=usb.0"]),
        ("<graphics type='vnc'/><input type='tablet'/><input type='mouse'/>", ["-device", "usb-mouse,bus=usb.0"]),
        ("<input type='tablet' bus='usb'/>", []),
        (
            "<input type='tablet' bus='virtio'><driver iommu='on'/></input>",
            ["-device", "virtio-tablet-pci,disable-legacy=on,iommu_platform=on"],
        ),
        ("<input type='mouse' bus='ps2'/>", []),
    ],
}


@pytest.mark.parametrize(
    ("key", "xml", "wanted"), [(key, xml, wanted) for key, cases in DEVICES.items() for xml, wanted in cases]
)
def test_what_becomes_of_devices(key: str, xml: str, wanted: object) -> None:
    assert value(domain(xml), key) == wanted


# What SUSE's guide says a SEV guest must have or can't have: (devices, machine, element, kind, word of the reason, key,
# value in the profile).
