"""The library: what programs that embed sevlaunch use. Names here stay; everything else may change.

::

    profile = Profile.load("guest.yaml")
    async with launch(plan(profile, Host.probe())) as guest:
        await guest.console.expect("login:")

The host's side plans, starts and looks at guests; the owner's side, from :class:`Chain` to :class:`IdBlock`, works from
files alone and trusts nothing on the host. Nothing here installs signal handlers, configures logging or keeps global
state. Every ``await`` may be cancelled: what was begun is undone.

A name's module is imported when the name is first used: who runs guests does not wait for X.509, nor an owner for QMP.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sevlaunch.errors import (
        EvidenceError,
        GuestBusy,
        GuestEnded,
        GuestNotFound,
        GuestTimeout,
        HostError,
        ImageError,
        InsecureUse,
        NameTaken,
        Problem,
        ProfileError,
        QemuError,
        QmpError,
        SevlaunchError,
        UnsafeFile,
        UnsupportedError,
        UsageError,
    )
    from sevlaunch.evidence import Ended, Evidence, FirmwareInfo, QemuInfo, SevInfo, Status
    from sevlaunch.flows.attest import FetchedReport, fetch_report
    from sevlaunch.flows.bring_up import BroughtUp, bring_up
    from sevlaunch.flows.completion import complete_plan
    from sevlaunch.flows.fetching import fetch_image, fetch_missing
    from sevlaunch.flows.fetching_keys import fetch_keys
    from sevlaunch.flows.guests import guest_status, list_guests
    from sevlaunch.flows.inside import run_in_guest, wait_for, wait_for_end
    from sevlaunch.flows.plans import Planned, plan_guest, plan_guests
    from sevlaunch.flows.restart import Restart, plan_restart, restart
    from sevlaunch.flows.service import stay
    from sevlaunch.flows.start_options import StartOptions
    from sevlaunch.flows.take_down import TakenDown, take_down, take_down_many
    from sevlaunch.flows.verification import Verification, plan_verification
    from sevlaunch.guest.agent_programs import ProgramEnd
    from sevlaunch.guest.embedding import Spawner
    from sevlaunch.guest.guest import Guest, LaunchedGuest
    from sevlaunch.guest.launch import launch
    from sevlaunch.guest.process import Process, spawn
    from sevlaunch.guest.readiness import Condition, parse_condition, wait_until_ready
    from sevlaunch.guest.serial import Console
    from sevlaunch.guest_type import GuestType
    from sevlaunch.host.model import Host
    from sevlaunch.image.download import Reports as FetchReports
    from sevlaunch.image.fetch import Fetched as FetchedImage
    from sevlaunch.image.proof import FetchOptions
    from sevlaunch.image.store import Kept as CachedImage
    from sevlaunch.image.store import Record as ImageRecord
    from sevlaunch.image.store import list_images, remove_image
    from sevlaunch.image.verity import HashTree, make_hash_tree
    from sevlaunch.owner.chain import Chain, parse_sev_certificates, read_root, read_sev_certificates, verify_chain
    from sevlaunch.owner.checks import Check, Verdict
    from sevlaunch.owner.claims import HostClaims, parse_claims, read_claims
    from sevlaunch.owner.collected import ReportFile
    from sevlaunch.owner.digest import Launch, launch_digest
    from sevlaunch.owner.firmware import Firmware, read_firmware
    from sevlaunch.owner.id_block import (
        SignedIdBlock,
        anonymous_id_block,
        read_private_key,
        sign_id_block,
        write_id_block,
    )
    from sevlaunch.owner.lock import Lock, compare_locks, lock_plan, read_lock
    from sevlaunch.owner.platform import PlatformNote, read_platform_note, require_vouched
    from sevlaunch.owner.report import ReportVerdict, Trust, verify_report
    from sevlaunch.owner.report_file import read_report
    from sevlaunch.owner.report_wanted import WantedReport, parse_tcb
    from sevlaunch.owner.request import new_nonce, request_script
    from sevlaunch.owner.secret import Packet, Secret, read_packet, read_secret, wrap_secrets
    from sevlaunch.owner.session import LaunchSession, make_session, write_session
    from sevlaunch.owner.setup import Options as LaunchOptions
    from sevlaunch.owner.setup import Setup as LaunchSetup
    from sevlaunch.owner.setup import resolve_setup
    from sevlaunch.owner.verify import Expectation, LaunchVerdict, verify_launch
    from sevlaunch.owner.x509_files import CertificateFolder, read_certificate_folder
    from sevlaunch.plan.command_line import argv as render
    from sevlaunch.plan.plan import Plan
    from sevlaunch.plan.resolve import resolve as plan
    from sevlaunch.ports import ForwardInfo, SshAddress
    from sevlaunch.profile.loader import LoadedProfile as Profile
    from sevlaunch.sevapi.id_block import IdBlock
    from sevlaunch.sevapi.session import TransportKeys

# Where each name is: module and attribute below sevlaunch.
_HOMES = {
    "BroughtUp": "flows.bring_up.BroughtUp",
    "CachedImage": "image.store.Kept",
    "CertificateFolder": "owner.x509_files.CertificateFolder",
    "Chain": "owner.chain.Chain",
    "Check": "owner.checks.Check",
    "Condition": "guest.readiness.Condition",
    "Console": "guest.serial.Console",
    "Ended": "evidence.Ended",
    "Evidence": "evidence.Evidence",
    "EvidenceError": "errors.EvidenceError",
    "Expectation": "owner.verify.Expectation",
    "FetchOptions": "image.proof.FetchOptions",
    "FetchReports": "image.download.Reports",
    "FetchedImage": "image.fetch.Fetched",
    "FetchedReport": "flows.attest.FetchedReport",
    "Firmware": "owner.firmware.Firmware",
    "FirmwareInfo": "evidence.FirmwareInfo",
    "ForwardInfo": "ports.ForwardInfo",
    "Guest": "guest.guest.Guest",
    "GuestBusy": "errors.GuestBusy",
    "GuestEnded": "errors.GuestEnded",
    "GuestNotFound": "errors.GuestNotFound",
    "GuestTimeout": "errors.GuestTimeout",
    "GuestType": "guest_type.GuestType",
    "HashTree": "image.verity.HashTree",
    "Host": "host.model.Host",
    "HostClaims": "owner.claims.HostClaims",
    "HostError": "errors.HostError",
    "IdBlock": "sevapi.id_block.IdBlock",
    "ImageError": "errors.ImageError",
    "ImageRecord": "image.store.Record",
    "InsecureUse": "errors.InsecureUse",
    "Launch": "owner.digest.Launch",
    "LaunchOptions": "owner.setup.Options",
    "LaunchSession": "owner.session.LaunchSession",
    "LaunchSetup": "owner.setup.Setup",
    "LaunchVerdict": "owner.verify.LaunchVerdict",
    "LaunchedGuest": "guest.guest.LaunchedGuest",
    "Lock": "owner.lock.Lock",
    "NameTaken": "errors.NameTaken",
    "Packet": "owner.secret.Packet",
    "Plan": "plan.plan.Plan",
    "Planned": "flows.plans.Planned",
    "PlatformNote": "owner.platform.PlatformNote",
    "Problem": "errors.Problem",
    "Process": "guest.process.Process",
    "Profile": "profile.loader.LoadedProfile",
    "ProfileError": "errors.ProfileError",
    "ProgramEnd": "guest.agent_programs.ProgramEnd",
    "QemuError": "errors.QemuError",
    "QemuInfo": "evidence.QemuInfo",
    "QmpError": "errors.QmpError",
    "ReportFile": "owner.collected.ReportFile",
    "ReportVerdict": "owner.report.ReportVerdict",
    "Restart": "flows.restart.Restart",
    "Secret": "owner.secret.Secret",
    "SevInfo": "evidence.SevInfo",
    "SevlaunchError": "errors.SevlaunchError",
    "SignedIdBlock": "owner.id_block.SignedIdBlock",
    "Spawner": "guest.embedding.Spawner",
    "SshAddress": "ports.SshAddress",
    "StartOptions": "flows.start_options.StartOptions",
    "Status": "evidence.Status",
    "TakenDown": "flows.take_down.TakenDown",
    "TransportKeys": "sevapi.session.TransportKeys",
    "Trust": "owner.report.Trust",
    "UnsafeFile": "errors.UnsafeFile",
    "UnsupportedError": "errors.UnsupportedError",
    "UsageError": "errors.UsageError",
    "Verdict": "owner.checks.Verdict",
    "Verification": "flows.verification.Verification",
    "WantedReport": "owner.report_wanted.WantedReport",
    "anonymous_id_block": "owner.id_block.anonymous_id_block",
    "bring_up": "flows.bring_up.bring_up",
    "compare_locks": "owner.lock.compare_locks",
    "complete_plan": "flows.completion.complete_plan",
    "fetch_image": "flows.fetching.fetch_image",
    "fetch_keys": "flows.fetching_keys.fetch_keys",
    "fetch_missing": "flows.fetching.fetch_missing",
    "fetch_report": "flows.attest.fetch_report",
    "guest_status": "flows.guests.guest_status",
    "launch": "guest.launch.launch",
    "launch_digest": "owner.digest.launch_digest",
    "list_guests": "flows.guests.list_guests",
    "list_images": "image.store.list_images",
    "lock_plan": "owner.lock.lock_plan",
    "make_hash_tree": "image.verity.make_hash_tree",
    "make_session": "owner.session.make_session",
    "new_nonce": "owner.request.new_nonce",
    "parse_claims": "owner.claims.parse_claims",
    "parse_condition": "guest.readiness.parse_condition",
    "parse_sev_certificates": "owner.chain.parse_sev_certificates",
    "parse_tcb": "owner.report_wanted.parse_tcb",
    "plan": "plan.resolve.resolve",
    "plan_guest": "flows.plans.plan_guest",
    "plan_guests": "flows.plans.plan_guests",
    "plan_restart": "flows.restart.plan_restart",
    "plan_verification": "flows.verification.plan_verification",
    "read_certificate_folder": "owner.x509_files.read_certificate_folder",
    "read_claims": "owner.claims.read_claims",
    "read_firmware": "owner.firmware.read_firmware",
    "read_lock": "owner.lock.read_lock",
    "read_packet": "owner.secret.read_packet",
    "read_platform_note": "owner.platform.read_platform_note",
    "read_private_key": "owner.id_block.read_private_key",
    "read_report": "owner.report_file.read_report",
    "read_root": "owner.chain.read_root",
    "read_secret": "owner.secret.read_secret",
    "read_sev_certificates": "owner.chain.read_sev_certificates",
    "remove_image": "image.store.remove_image",
    "render": "plan.command_line.argv",
    "request_script": "owner.request.request_script",
    "require_vouched": "owner.platform.require_vouched",
    "resolve_setup": "owner.setup.resolve_setup",
    "restart": "flows.restart.restart",
    "run_in_guest": "flows.inside.run_in_guest",
    "sign_id_block": "owner.id_block.sign_id_block",
    "spawn": "guest.process.spawn",
    "stay": "flows.service.stay",
    "take_down": "flows.take_down.take_down",
    "take_down_many": "flows.take_down.take_down_many",
    "verify_chain": "owner.chain.verify_chain",
    "verify_launch": "owner.verify.verify_launch",
    "verify_report": "owner.report.verify_report",
    "wait_for": "flows.inside.wait_for",
    "wait_for_end": "flows.inside.wait_for_end",
    "wait_until_ready": "guest.readiness.wait_until_ready",
    "wrap_secrets": "owner.secret.wrap_secrets",
    "write_id_block": "owner.id_block.write_id_block",
    "write_session": "owner.session.write_session",
}

__all__ = [
    "BroughtUp",
    "CachedImage",
    "CertificateFolder",
    "Chain",
    "Check",
    "Condition",
    "Console",
    "Ended",
    "Evidence",
    "EvidenceError",
    "Expectation",
    "FetchOptions",
    "FetchReports",
    "FetchedImage",
    "FetchedReport",
    "Firmware",
    "FirmwareInfo",
    "ForwardInfo",
    "Guest",
    "GuestBusy",
    "GuestEnded",
    "GuestNotFound",
    "GuestTimeout",
    "GuestType",
    "HashTree",
    "Host",
    "HostClaims",
    "HostError",
    "IdBlock",
    "ImageError",
    "ImageRecord",
    "InsecureUse",
    "Launch",
    "LaunchOptions",
    "LaunchSession",
    "LaunchSetup",
    "LaunchVerdict",
    "LaunchedGuest",
    "Lock",
    "NameTaken",
    "Packet",
    "Plan",
    "Planned",
    "PlatformNote",
    "Problem",
    "Process",
    "Profile",
    "ProfileError",
    "ProgramEnd",
    "QemuError",
    "QemuInfo",
    "QmpError",
    "ReportFile",
    "ReportVerdict",
    "Restart",
    "Secret",
    "SevInfo",
    "SevlaunchError",
    "SignedIdBlock",
    "Spawner",
    "SshAddress",
    "StartOptions",
    "Status",
    "TakenDown",
    "TransportKeys",
    "Trust",
    "UnsafeFile",
    "UnsupportedError",
    "UsageError",
    "Verdict",
    "Verification",
    "WantedReport",
    "anonymous_id_block",
    "bring_up",
    "compare_locks",
    "complete_plan",
    "fetch_image",
    "fetch_keys",
    "fetch_missing",
    "fetch_report",
    "guest_status",
    "launch",
    "launch_digest",
    "list_guests",
    "list_images",
    "lock_plan",
    "make_hash_tree",
    "make_session",
    "new_nonce",
    "parse_claims",
    "parse_condition",
    "parse_sev_certificates",
    "parse_tcb",
    "plan",
    "plan_guest",
    "plan_guests",
    "plan_restart",
    "plan_verification",
    "read_certificate_folder",
    "read_claims",
    "read_firmware",
    "read_lock",
    "read_packet",
    "read_platform_note",
    "read_private_key",
    "read_report",
    "read_root",
    "read_secret",
    "read_sev_certificates",
    "remove_image",
    "render",
    "request_script",
    "require_vouched",
    "resolve_setup",
    "restart",
    "run_in_guest",
    "sign_id_block",
    "spawn",
    "stay",
    "take_down",
    "take_down_many",
    "verify_chain",
    "verify_launch",
    "verify_report",
    "wait_for",
    "wait_for_end",
    "wait_until_ready",
    "wrap_secrets",
    "write_id_block",
    "write_session",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _HOMES[name].rpartition(".")
        found = getattr(import_module(f"sevlaunch.{module}"), attribute)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return [*globals(), *_HOMES]
