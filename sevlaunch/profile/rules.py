"""Rules about several values of a profile: what an encrypted guest can't have, and what contradicts itself.

A rule looks at the profile alone. What also depends on the host is decided in :mod:`sevlaunch.plan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from sevlaunch.profile.machine_rules import check_machine, check_machine_cautions
from sevlaunch.profile.memory_rules import check_memory
from sevlaunch.profile.model import IdKeys, Profile, SevSecurity, SnpSecurity
from sevlaunch.profile.places import check_places
from sevlaunch.profile.policy import SEV_ES, SEV_POLICY, policy_format, policy_warnings
from sevlaunch.profile.violation import Violation

if TYPE_CHECKING:
    from sevlaunch.profile.extra_args import Finding

# The rules about what few guests have are imported for a profile that says something under one of their keys.
_BOARD = ("fw_cfg", "ignition", "credentials", "smbios", "watchdog")
_DEVICES = ("video", "display", "channels", "shares", "tpm")
_DEFAULTS = Profile(name="guest")


def check_rules(profile: Profile) -> Iterator[Violation]:
    """Every rule that ``profile`` breaks."""
    if profile.security.encrypted:
        yield from _encrypted_machine(profile)
    if isinstance(profile.security, SevSecurity):
        yield from _sev(profile.security)
    if isinstance(profile.security, SnpSecurity):
        yield from _snp(profile)
    yield from _flash(profile)
    yield from _consistency(profile)
    if _says(profile, "boot") or profile.security.measures_boot:
        from sevlaunch.profile.boot_rules import check_boot
        from sevlaunch.profile.direct_boot_rules import check_direct_boot
        from sevlaunch.profile.verity_rules import check_verity

        yield from check_direct_boot(profile)
        yield from check_boot(profile)
        yield from check_verity(profile)
    yield from check_machine(profile)
    yield from check_memory(profile)
    if _says(profile, *_BOARD):
        from sevlaunch.profile.board_rules import check_board

        yield from check_board(profile)
    if profile.disks:
        from sevlaunch.profile.disk_rules import check_disks

        yield from check_disks(profile)
    if profile.first_boot:
        from sevlaunch.profile.first_boot_rules import check_first_boot

        yield from check_first_boot(profile)
    if profile.initdata:
        from sevlaunch.profile.initdata_rules import check_initdata

        yield from check_initdata(profile)
    if profile.networks:
        from sevlaunch.profile.network_rules import check_networks

        yield from check_networks(profile)
    if profile.security.encrypted or profile.disks:
        from sevlaunch.profile.dma_rules import check_dma_api

        yield from check_dma_api(profile)
    if _says(profile, *_DEVICES):
        from sevlaunch.profile.device_rules import check_devices

        yield from check_devices(profile)
    yield from check_places(profile)
    for finding in extra_args_findings(profile):
        if finding.refused:
            yield Violation(("qemu", "extra_args", finding.position), finding.message)


def check_cautions(profile: Profile) -> Iterator[Violation]:
    """What ``profile`` may ask for and its user should know: what weakens the guest, or can fail."""
    security = profile.security
    if isinstance(security, (SevSecurity, SnpSecurity)) and security.policy is not None:
        for warning in policy_warnings(security.policy, policy_format(security.guest_type)):
            yield Violation(("security", "policy"), warning)
    if _says(profile, "boot"):
        from sevlaunch.profile.boot_rules import boot_cautions
        from sevlaunch.profile.direct_boot_rules import direct_boot_cautions
        from sevlaunch.profile.verity_rules import verity_cautions

        yield from direct_boot_cautions(profile)
        yield from boot_cautions(profile)
        yield from verity_cautions(profile)
    if profile.disks:
        from sevlaunch.profile.disk_rules import disk_cautions

        yield from disk_cautions(profile)
    if profile.first_boot:
        from sevlaunch.profile.first_boot_rules import first_boot_cautions

        yield from first_boot_cautions(profile)
    if profile.initdata:
        from sevlaunch.profile.initdata_rules import initdata_cautions

        yield from initdata_cautions(profile)
    if profile.networks:
        from sevlaunch.profile.network_rules import network_cautions

        yield from network_cautions(profile)
    if _says(profile, *_DEVICES):
        from sevlaunch.profile.device_rules import device_cautions

        yield from device_cautions(profile)
    yield from check_machine_cautions(profile)
    if _says(profile, *_BOARD):
        from sevlaunch.profile.board_rules import board_cautions

        yield from board_cautions(profile)
    for finding in extra_args_findings(profile):
        if not finding.refused:
            yield Violation(("qemu", "extra_args", finding.position), finding.message)


def _says(profile: Profile, *keys: str) -> bool:
    """Whether ``profile`` has something else than the default under one of ``keys``."""
    return any(getattr(profile, key) != getattr(_DEFAULTS, key) for key in keys)


def extra_args_findings(profile: Profile) -> list[Finding]:
    """What is wrong with ``qemu.extra_args``, and what should be known of them."""
    if not profile.qemu.extra_args:
        return []
    # Most profiles have none, and QEMU's options are many.
    from sevlaunch.profile.extra_args import check_extra_args

    args, encrypted = profile.qemu.extra_args, profile.security.encrypted
    return list(check_extra_args(args, encrypted=encrypted, accel=profile.accel))


def _encrypted_machine(profile: Profile) -> Iterator[Violation]:
    if profile.accel == "tcg":
        yield Violation(("accel",), "an encrypted guest needs KVM: use accel: kvm, or security: none with tcg")
    for index, _share in enumerate(profile.shares):
        yield Violation(
            ("shares", index),
            "a shared folder needs a process on the host that reads guest memory, which is encrypted: use a read-only "
            "disk that is made of it (disks: [{folder: DIR}]), or copy files (sevlaunch cp)",
        )


def _sev(security: SevSecurity) -> Iterator[Violation]:
    wants_es = bool(security.effective_policy & SEV_ES)
    if security.encrypts_registers and not wants_es:
        yield Violation(
            ("security", "policy"),
            f"type sev-es needs the policy bit es (bit 2), found {security.effective_policy:#x}: "
            f"use {security.effective_policy | SEV_ES:#x}, or type sev",
        )
    if wants_es and not security.encrypts_registers:
        yield Violation(
            ("security", "policy"),
            f"the policy bit es (bit 2) asks for SEV-ES, but the type is sev: use type sev-es, or policy "
            f"{security.effective_policy & ~SEV_ES:#x}",
        )
    if (security.session is None) != (security.dh_cert is None):
        there, missing = ("session", "dh_cert") if security.session else ("dh_cert", "session")
        yield Violation(
            ("security", there),
            f"a launch session needs both dh_cert and session, found no {missing}",
            (("security", missing),),
        )
    if security.handle and security.effective_policy & SEV_POLICY.bits["no-key-sharing"]:
        yield Violation(
            ("security", "handle"), "sharing a key needs a policy without no-key-sharing", (("security", "policy"),)
        )


def _snp(profile: Profile) -> Iterator[Violation]:
    security = profile.security
    assert isinstance(security, SnpSecurity)
    block = security.id_block
    if security.id_auth and block is None:
        yield Violation(
            ("security", "id_auth"), "id_auth signs an id_block, and there is none", (("security", "id_block"),)
        )
    elif security.id_auth and not isinstance(block, bytes):
        yield Violation(
            ("security", "id_auth"),
            "id_auth signs an id_block of 96 bytes; this one is made, and signed, at the start: leave id_auth out",
            (("security", "id_block"),),
        )
    if isinstance(block, bytes) and not security.id_auth:
        yield Violation(("security", "id_block"), "id_block needs id_auth, which signs it", (("security", "id_auth"),))
    if security.author_key_enabled and isinstance(block, (str, IdKeys)):
        if not (isinstance(block, IdKeys) and block.author):
            yield Violation(
                ("security", "author_key_enabled"),
                "the author key stands in id_block: {key: FILE, author: FILE}, and there is none",
                (("security", "id_block"),),
            )
    elif security.author_key_enabled and not security.id_auth:
        yield Violation(
            ("security", "author_key_enabled"),
            "the author key stands in id_auth, and there is none",
            (("security", "id_auth"),),
        )


def _flash(profile: Profile) -> Iterator[Violation]:
    key = next((key for key in ("code", "vars", "nvram") if getattr(profile.firmware, key)), None)
    if key and not profile.security.has_pflash:
        snp = isinstance(profile.security, SnpSecurity)
        yield Violation(
            ("firmware", key),
            f"a {profile.security.type} guest {'' if snp else 'with legacy_vm_type: false '}can't have pflash: use "
            "firmware.image with a stateless image (OVMF.amdsev.fd)",
            () if snp else (("security", "legacy_vm_type"),),
        )


def _consistency(profile: Profile) -> Iterator[Violation]:
    firmware = profile.firmware
    if firmware.image and (firmware.code or firmware.vars or firmware.nvram):
        yield Violation(("firmware", "image"), "image is stateless: it can't go with code, vars and nvram")
    if (firmware.vars or firmware.nvram) and not firmware.code:
        yield Violation(
            ("firmware",), "vars and nvram need code, the other half of the pflash pair", (("firmware", "code"),)
        )
    if firmware.secure_boot and (firmware.image or firmware.code):
        named = "image" if firmware.image else "code"
        yield Violation(
            ("firmware", "secure_boot"),
            f"secure_boot chooses among the described firmwares, and {named} names one: leave one of them out",
            (("firmware", named),),
        )
    if firmware.secure_boot and not profile.smm:
        yield Violation(("smm",), "secure boot needs SMM: leave smm out", (("firmware", "secure_boot"),))
    if firmware.secure_boot and not profile.security.has_smm:
        yield Violation(
            ("firmware", "secure_boot"),
            f"secure boot needs SMM, which a {profile.security.type} guest can't have: measure its direct boot instead "
            "(security.kernel_hashes)",
            (("security", "type"),),
        )
