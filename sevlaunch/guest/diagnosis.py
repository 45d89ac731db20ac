# ruff: noqa: E501 - a table reads better with one line an entry
"""What QEMU prints when it fails -> what that means and what to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Pattern in QEMU's output -> hint. The first match counts.
KNOWN = (
    (r"accelerator does not support confidential guest", "SEV needs KVM: leave accel at auto or kvm"),
    (r"cbitpos check failed", "cbitpos is another on this CPU: leave security.cbitpos at auto"),
    (r"failed to open .*/dev/sev|Failed to open .*sev", "/dev/sev can't be opened: join its group, or set an ACL on it"),
    (r"sev_kvm_init: failed to initialize|failed to initialize ret=", "KVM has no SEV here: see `sevlaunch host`, kvm.parameters"),
    (r"VIRTIO_F_IOMMU_PLATFORM was supported by neither", "a virtio device needs disable-legacy=on for iommu_platform=on"),
    (r"mlockall|Cannot allocate memory.*lock|failed to lock", "memory can't be locked: raise RLIMIT_MEMLOCK, or use memory.hugepages"),
    (r"unable to map backing store for guest RAM|Cannot allocate memory", "there is not enough free memory or huge pages"),
    (r"Could not access KVM kernel module: Permission denied", "join the group of /dev/kvm, or set an ACL on it"),
    (r"Could not access KVM kernel module|failed to initialize kvm", "KVM can't be used here: load the module, or set accel: tcg"),
    (r"Failed to get .*lock|Failed to lock byte", "another process uses the image: is the guest running under another name?"),
    (r"Could not set up host forwarding rule", "the host port is in use: choose another one in networks.N.forward"),
    (r"could not configure /dev/net/tun", "the tap interface needs to exist, and this user needs the right to use it"),
    (r"unable to set guest cid", "the vsock context ID is in use: choose another one"),
    (r"Could not open '([^']+)': Permission denied", "QEMU runs as this user, who can't open the file"),
    (r"No space left on device", "the disk is full"),
    (r"bridge helper failed|failed to launch bridge helper", "allow the bridge in /etc/qemu/bridge.conf"),
)  # fmt: skip

# target/i386/sev.c: "LAUNCH_START ret=1 fw_error=11 'Bad measurement'".
_FIRMWARE_ERROR = re.compile(r"fw_err(?:or)?[=:]\s*(\d+)")


def hint_for(lines: Sequence[str]) -> str:
    """A hint for the known cause in QEMU's output, or empty."""
    text = "\n".join(lines)
    answered = _FIRMWARE_ERROR.search(text)
    if answered and int(answered[1]):
        from sevlaunch.sevapi.status import explain_status

        return explain_status(int(answered[1]))
    return next((hint for pattern, hint in KNOWN if re.search(pattern, text, re.IGNORECASE)), "")
