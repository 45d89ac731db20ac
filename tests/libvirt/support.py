"""What the tests of the import share: domains from parts, and what became of each part."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from sevlaunch.libvirt.document import read_domain
from sevlaunch.libvirt.domain import Imported, import_domain
from sevlaunch.profile.loader import loads
from sevlaunch.profile.model import Profile

SUSE = Path(__file__).parent / "sles15-sev-guest.xml"

DISK = "<disk type='file'><driver type='raw'{0}/><source file='/d'/><target dev='vda' bus='virtio'/></disk>"
NIC = "<interface type='user'><model type='virtio'/>{0}</interface>"
AGENT = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
SEV = "<launchSecurity type='sev'><policy>0x33</policy></launchSecurity>"


def domain(devices: str = "", *, before: str = "", os: str = "", kind: str = "kvm", machine: str = "q35") -> str:
    """Domain XML with these devices, and with ``before`` in front of them."""
    return (
        f"<domain type='{kind}'>\n<name>guest</name>\n<memory unit='MiB'>1024</memory>\n<vcpu>1</vcpu>\n"
        f"<os firmware='efi'><type arch='x86_64' machine='{machine}'>hvm</type>{os}</os>\n{before}\n"
        f"<devices>\n{devices}\n</devices>\n</domain>\n"
    )


def imported(xml: str | bytes, machines: Collection[str] | None = None) -> Imported:
    """What becomes of domain XML."""
    content = xml.encode() if isinstance(xml, str) else xml
    return import_domain(read_domain(content, file="d.xml"), file="d.xml", machines=machines)


def profile_of(result: Imported) -> Profile:
    """The profile, as sevlaunch's loader reads it."""
    assert result.problems == ()
    return loads(result.text, name=result.name).profile


def value(xml: str, path: str) -> Any:
    """A value of the imported profile."""
    found: Any = msgspec.to_builtins(profile_of(imported(xml)))
    for part in path.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def became(result: Imported, element: str) -> list[tuple[str, str]]:
    """(kind, reason) of every outcome of an element, such as ``devices/disk/target@bus``."""
    return [(outcome.kind.value, outcome.reason) for outcome in result.outcomes if outcome.element == element]
