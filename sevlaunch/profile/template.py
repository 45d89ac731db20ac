"""Commented starting profiles, one for each type of guest, with an image or without one."""

from __future__ import annotations

import json

from sevlaunch.guest_type import GuestType
from sevlaunch.image_reference import is_name

_HEAD = {
    GuestType.NONE: "# An ordinary guest, without encryption.\n",
    GuestType.SEV: "# A SEV guest: its memory is encrypted.\n",
    GuestType.SEV_ES: "# A SEV-ES guest: its memory and registers are encrypted.\n",
    GuestType.SEV_SNP: (
        "# A SEV-SNP guest: its memory and registers are encrypted, and safe from replay and remapping.\n"
    ),
}

_SECURITY = {
    GuestType.NONE: "security: none\n",
    GuestType.SEV: """\
security:
  type: sev
  policy: [no-debug, no-key-sharing, domain, sev]   # or a number: 0x33; see: sevlaunch policy 0x33
  # cbitpos: 51                # default: the host's
  # dh_cert: owner_godh.b64    # the guest owner's session: only with it can the measurement be verified
  # session: owner_session.b64
  # kernel_hashes: true        # measure boot.kernel, initrd and cmdline; needs a firmware built for it (OVMF.amdsev.fd)
""",
    GuestType.SEV_ES: """\
security:
  type: sev-es
  policy: [no-debug, no-key-sharing, es, domain, sev]   # or a number: 0x37; see: sevlaunch policy 0x37
  # cbitpos: 51                # default: the host's
  # dh_cert: owner_godh.b64    # the guest owner's session: only with it can the measurement be verified
  # session: owner_session.b64
  # kernel_hashes: true        # measure boot.kernel, initrd and cmdline; needs a firmware built for it (OVMF.amdsev.fd)
""",
    GuestType.SEV_SNP: """\
security:
  type: sev-snp
  policy: [smt]                # or a number: 0x30000; see: sevlaunch policy --snp 0x30000
  # cbitpos: 51                # default: the host's
  # host_data: BASE64          # 32 bytes that stand in the guest's attestation report; or else: initdata
  # id_block: anonymous        # the processor refuses any launch but the one that this profile gives
  # kernel_hashes: true        # measure boot.kernel, initrd and cmdline
""",
}

_COMMON = """\

cpus: 2                        # long form: cpu: {{model: EPYC-v4, count: 2}}
memory: 2G                     # long form: memory: {{size: 2G, hugepages: 2M}}

{security}
# Chosen by the images that the host has, unless it is named here:
# firmware: {{{firmware}}}

{disks}#  - {{path: disk.qcow2, format: qcow2}}
#  - {{path: install.iso, bus: virtio-scsi, cdrom: true}}

networks:
  - {{type: user{ssh}}}               # forward a port: {{type: user, forward: ["tcp:127.0.0.1:2222:22"]}}
#  - {{type: tap, interface: tap0}}
#  - {{type: bridge, bridge: br0}}
#  - {{type: macvtap, interface: macvtap0}}

rng: true
console: serial                # sevlaunch console NAME
# boot: {{order: [disk0, net0]}}
# boot: {{kernel: vmlinuz, initrd: initrd.img, cmdline: "console=ttyS0"}}
"""

_FIRMWARE = {
    GuestType.NONE: "code: /usr/share/OVMF/OVMF_CODE_4M.fd, vars: /usr/share/OVMF/OVMF_VARS_4M.fd",
    GuestType.SEV: "code: /usr/share/OVMF/OVMF_CODE_4M.fd, vars: /usr/share/OVMF/OVMF_VARS_4M.fd",
    GuestType.SEV_ES: "code: /usr/share/OVMF/OVMF_CODE_4M.fd, vars: /usr/share/OVMF/OVMF_VARS_4M.fd",
    GuestType.SEV_SNP: "image: /usr/share/ovmf/OVMF.amdsev.fd",
}


# The image is never written; beside it comes who logs in.
_IMAGE = """\
disks:
  - {{image: {image}, size: 20G}}     # fetched by `up`; what the guest writes is kept beside it
"""
_FIRST_BOOT = """
first_boot:                    # what cloud-init does at the first start; sevlaunch ssh NAME
  ssh_keys: auto               # yours, or a key pair of the guest's own
  # user: null                 # default: admin, who is made; null: the image's own user
"""


def starting_profile(guest_type: GuestType, image: str | None = None) -> str:
    """A commented profile for ``guest_type`` that is valid as it stands.

    :param image: what it boots: a name of the catalogue, or a file.
    """
    disks = _IMAGE.format(image=image if is_name(image) else json.dumps(image)) if image else "disks: []\n"
    profile = _HEAD[guest_type] + _COMMON.format(
        security=_SECURITY[guest_type],
        firmware=_FIRMWARE[guest_type],
        disks=disks,
        ssh=", ssh: auto" if image else "",
    )
    return profile + _FIRST_BOOT if image else profile
