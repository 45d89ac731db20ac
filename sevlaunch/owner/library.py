"""The library of a verifier's own service: names of the guest owner's side that stay.

::

    wanted = report_of_lock(read_lock(Path("guest.lock")))
    found = report_from_bytes(sent)
    verdict = verify_report(found.content, certificates, replace(wanted, report_data=expected), Trust(at=now))

Nothing here is about a running guest. The checks (:func:`verify_report`, :func:`launch_digest`) read no files and no
clock, know no network, keep nothing between two calls but the signatures of chains that were looked at, and may be
called from several threads at once. A name's module is imported when the name is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sevlaunch.owner.allowed_launches import launches_of_lock, launches_of_setup
    from sevlaunch.owner.checks import Check
    from sevlaunch.owner.collected import ReportFile
    from sevlaunch.owner.contrast import contrast_values
    from sevlaunch.owner.corim import corim_document
    from sevlaunch.owner.digest import Launch, launch_digest
    from sevlaunch.owner.endorsement import EndorsementChain, root_fingerprint
    from sevlaunch.owner.firmware import Firmware, read_firmware
    from sevlaunch.owner.id_block import SignedIdBlock, anonymous_id_block, read_private_key, sign_id_block
    from sevlaunch.owner.key_service import key_addresses
    from sevlaunch.owner.lacking import Lack
    from sevlaunch.owner.lock import Lock, read_lock
    from sevlaunch.owner.locked_report import report_of_lock
    from sevlaunch.owner.reference_values import AllowedLaunch, Platform, ReferenceValues
    from sevlaunch.owner.rego import rego_policy
    from sevlaunch.owner.report import ReportVerdict, Trust, report_fields, verify_report
    from sevlaunch.owner.report_file import read_report, report_from_bytes
    from sevlaunch.owner.report_wanted import WantedReport
    from sevlaunch.owner.request import new_nonce, request_script
    from sevlaunch.owner.requirements import Requirements, read_requirements
    from sevlaunch.owner.trustee import policy_input, rvps_message, stored_values, trustee_values
    from sevlaunch.owner.x509_files import (
        CertificateFolder,
        parse_certificates,
        read_certificate_folder,
        read_revocations,
    )
    from sevlaunch.sevapi.id_block import IdBlock
    from sevlaunch.sevapi.report import Report, Tcb

_HOMES = {
    "AllowedLaunch": "owner.reference_values",
    "CertificateFolder": "owner.x509_files",
    "Check": "owner.checks",
    "EndorsementChain": "owner.endorsement",
    "Firmware": "owner.firmware",
    "IdBlock": "sevapi.id_block",
    "Lack": "owner.lacking",
    "Launch": "owner.digest",
    "Lock": "owner.lock",
    "Platform": "owner.reference_values",
    "ReferenceValues": "owner.reference_values",
    "Report": "sevapi.report",
    "ReportFile": "owner.collected",
    "ReportVerdict": "owner.report",
    "Requirements": "owner.requirements",
    "SignedIdBlock": "owner.id_block",
    "Tcb": "sevapi.report",
    "Trust": "owner.report",
    "WantedReport": "owner.report_wanted",
    "anonymous_id_block": "owner.id_block",
    "contrast_values": "owner.contrast",
    "corim_document": "owner.corim",
    "key_addresses": "owner.key_service",
    "launch_digest": "owner.digest",
    "launches_of_lock": "owner.allowed_launches",
    "launches_of_setup": "owner.allowed_launches",
    "new_nonce": "owner.request",
    "parse_certificates": "owner.x509_files",
    "policy_input": "owner.trustee",
    "read_certificate_folder": "owner.x509_files",
    "read_firmware": "owner.firmware",
    "read_lock": "owner.lock",
    "read_private_key": "owner.id_block",
    "read_report": "owner.report_file",
    "read_requirements": "owner.requirements",
    "read_revocations": "owner.x509_files",
    "rego_policy": "owner.rego",
    "report_fields": "owner.report",
    "report_from_bytes": "owner.report_file",
    "report_of_lock": "owner.locked_report",
    "request_script": "owner.request",
    "root_fingerprint": "owner.endorsement",
    "rvps_message": "owner.trustee",
    "sign_id_block": "owner.id_block",
    "stored_values": "owner.trustee",
    "trustee_values": "owner.trustee",
    "verify_report": "owner.report",
}

__all__ = [
    "AllowedLaunch",
    "CertificateFolder",
    "Check",
    "EndorsementChain",
    "Firmware",
    "IdBlock",
    "Lack",
    "Launch",
    "Lock",
    "Platform",
    "ReferenceValues",
    "Report",
    "ReportFile",
    "ReportVerdict",
    "Requirements",
    "SignedIdBlock",
    "Tcb",
    "Trust",
    "WantedReport",
    "anonymous_id_block",
    "contrast_values",
    "corim_document",
    "key_addresses",
    "launch_digest",
    "launches_of_lock",
    "launches_of_setup",
    "new_nonce",
    "parse_certificates",
    "policy_input",
    "read_certificate_folder",
    "read_firmware",
    "read_lock",
    "read_private_key",
    "read_report",
    "read_requirements",
    "read_revocations",
    "rego_policy",
    "report_fields",
    "report_from_bytes",
    "report_of_lock",
    "request_script",
    "root_fingerprint",
    "rvps_message",
    "sign_id_block",
    "stored_values",
    "trustee_values",
    "verify_report",
]


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"sevlaunch.{_HOMES[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return [*globals(), *_HOMES]
