"""Rules about clock, SMBIOS, fw_cfg, watchdog and serial ports."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.boot_values import IGNITION, MOST_CREDENTIAL_BYTES
from sevlaunch.profile.machine_types import is_i440fx
from sevlaunch.profile.model import Profile
from sevlaunch.profile.violation import Violation


def check_board(profile: Profile) -> Iterator[Violation]:
    """Every rule about these that ``profile`` breaks."""
    names = [one.name for one in profile.fw_cfg]
    for index, one in enumerate(profile.fw_cfg):
        if (one.file is None) == (one.text is None):
            found = "neither" if one.file is None else "both"
            yield Violation(("fw_cfg", index), f"wanted one of file and text, found {found}")
        if one.name in names[:index]:
            yield Violation(("fw_cfg", index, "name"), f"two files have the name {one.name!r}")
        if one.name == IGNITION and profile.ignition:
            yield Violation(("fw_cfg", index, "name"), f"{IGNITION} is where ignition goes: leave one of them out")
    if profile.credentials and profile.security.encrypted:
        yield Violation(
            ("credentials",),
            "systemd in an encrypted guest takes no credentials from SMBIOS, which is the host's: use "
            "boot.credentials, which go into the initrd and are measured with it (security.kernel_hashes)",
            (("security", "type"),),
        )
    if sum(map(len, profile.credentials.values())) > MOST_CREDENTIAL_BYTES:
        yield Violation(
            ("credentials",),
            f"they have more than {MOST_CREDENTIAL_BYTES >> 10} KiB together, and SMBIOS has no room for it",
        )
    if profile.watchdog and profile.watchdog.model == "itco" and is_i440fx(profile.machine):
        yield Violation(
            ("watchdog", "model"),
            f"the chipset of {profile.machine} has no iTCO: use i6300esb, or machine: q35",
            (("machine",),),
        )


def board_cautions(profile: Profile) -> Iterator[Violation]:
    """What the host tells a guest that its measurement says nothing of."""
    told = [("fw_cfg",)] if profile.fw_cfg else []
    told += [("ignition",)] if profile.ignition else []
    told += [("smbios",)] if profile.smbios.oem_strings else []
    for path in told if profile.security.encrypted else ():
        yield Violation(
            path, f"{path[0]} is what the host tells the guest: no measurement says whether it is what stands here"
        )
