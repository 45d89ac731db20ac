"""Faults that a test has to notice: what stands in a file, what is put in its place, and who notices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """``old``, which stands in ``file`` once, becomes ``new``; then each of ``tests`` fails, in one of its cases."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...]


FAULTS = {
    "a monitor that others use is taken for stuck": Fault(
        "sevlaunch/guest/commands.py",
        'return replace(shown, state="busy")',
        'return replace(shown, state="unresponsive")',
        ("tests/guest/test_monitor.py::test_a_guest_whose_monitor_is_taken_is_busy_and_not_stuck",),
    ),
    "a QEMU that does not quit is killed at once": Fault(
        "sevlaunch/guest/ending.py",
        "process.signal(signal.SIGTERM)",
        "pass",
        ("tests/guest/test_monitor.py::test_down_asks_then_tells_then_kills",),
    ),
    "a record is believed for whichever process it names": Fault(
        "sevlaunch/guest/life.py",
        "if holds(record.pid, {record.lock, lock or record.lock}, user=user, argument=argument):",
        "if record.pid:",
        ("tests/guest/test_damaged_folder.py::test_a_record_that_names_a_stranger_is_not_believed",),
    ),
    "a file is taken whoever it belongs to": Fault(
        "sevlaunch/guest/safe_files.py",
        "if found.st_uid != self.owner:",
        "if False:",
        ("tests/guest/test_second_account.py::test_a_log_of_somebody_elses_is_not_shown",),
    ),
    "a folder on the way may be a stranger's": Fault(
        "sevlaunch/guest/runtime.py",
        "if found.st_uid not in trusted:",
        "if False:",
        ("tests/guest/test_second_account.py::test_a_folder_that_a_stranger_could_exchange_is_not_used",),
    ),
    "another user gets root's variables": Fault(
        "sevlaunch/guest/process.py",
        "names = os.environ if account is None else",
        "names = os.environ if True else",
        ("tests/guest/test_second_account.py::test_qemu_and_what_runs_beside_it_know_nothing_of_roots_environment",),
    ),
    "a guest that runs gets a secret": Fault(
        "sevlaunch/owner/secret.py",
        'if claims.sev.state != "launch-secret":',
        "if False:",
        (
            "tests/owner/test_secret.py::test_a_launch_in_another_state_takes_none",
            "tests/owner/test_secret.py::test_no_packet_is_made_for_a_guest_that_runs",
        ),
    ),
    "an issuer of reports' keys has a key of any size": Fault(
        "sevlaunch/owner/endorsement.py",
        "if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 4096:",
        "if not isinstance(key, rsa.RSAPublicKey):",
        ("tests/owner/test_report.py::test_an_issuer_whose_key_is_shorter_than_amds_is_refused",),
    ),
    "an ASK may name another root than signed it": Fault(
        "sevlaunch/sevapi/ca_certificate.py",
        "return self.certifying_id == signer.key_id and signer.verifies(",
        "return signer.verifies(",
        ("tests/owner/test_chain.py::test_an_authority_is_signed_by_the_root_that_it_names",),
    ),
    "the KDF counts from another number": Fault(
        "sevlaunch/sevapi/session.py",
        'struct.pack("<I", 1) + label.encode()',
        'struct.pack("<I", 0) + label.encode()',
        (
            "tests/sevapi/test_known_answers.py::test_the_key_derivation_gives_the_known_master_secret",
            "tests/sevapi/test_known_answers.py::test_a_session_is_made_as_amd_writes_it",
        ),
    ),
    "a part of a block is measured": Fault(
        "sevlaunch/rehearsal/kvm.py",
        "if length % 16:",
        "if False:",
        ("tests/rehearsal/test_processor.py::test_only_whole_blocks_of_16_bytes_are_encrypted",),
    ),
    "QEMU measures VMSAs of its own": Fault(
        "sevlaunch/rehearsal/snp_kvm.py",
        " or page_type == PageType.VMSA:",
        ":",
        ("tests/rehearsal/test_snp_processor.py::test_the_kernel_itself_refuses_an_update",),
    ),
    "an interrupted ioctl is done twice": Fault(
        "sevlaunch/rehearsal/conversation.py",
        "if self._unheard and self._unheard[0].repeats(notification):",
        "if self._unheard and False:",
        ("tests/rehearsal/test_conversation.py::test_an_ioctl_that_the_kernel_makes_again_is_done_once",),
    ),
    "a VCEK's key may be on any curve": Fault(
        "sevlaunch/owner/endorsement.py",
        "if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):",
        "if not isinstance(key, ec.EllipticCurvePublicKey):",
        ("tests/owner/test_report.py::test_a_certificate_of_a_key_on_another_curve_is_no_vcek",),
    ),
    "a certificate may be signed in any way": Fault(
        "sevlaunch/owner/endorsement.py",
        "if not isinstance(scheme, padding.PSS) or not isinstance(",
        "if not isinstance(",
        ("tests/owner/test_report.py::test_a_certificate_that_is_signed_another_way_than_amds_is_refused",),
    ),
    "certificates are in force before they begin": Fault(
        "sevlaunch/owner/endorsement.py",
        "start = max(one.not_valid_before_utc for one in given)",
        "start = min(one.not_valid_before_utc for one in given)",
        ("tests/owner/test_report.py::test_certificates_have_to_be_in_force",),
    ),
    "AMD's root for one generation vouches for all": Fault(
        "sevlaunch/owner/report.py",
        "if chain.amd_generation:",
        "if False:",
        ("tests/owner/test_report.py::test_amds_root_is_of_the_processors_generation",),
    ),
    "a SEV signature is whose it is not said to be": Fault(
        "sevlaunch/sevapi/certificate.py",
        "any(one.usage == signer.usage and self._verifies(one, signer)",
        "any(self._verifies(one, signer)",
        ("tests/owner/test_chain.py::test_a_signature_is_what_its_slot_says",),
    ),
    "something stands behind an RSA signature": Fault(
        "sevlaunch/sevapi/certificate.py",
        " and not any(padding)",
        "",
        ("tests/owner/test_chain.py::test_behind_a_signature_there_is_nothing",),
    ),
    "one key wraps and authenticates a session": Fault(
        "sevlaunch/sevapi/session.py",
        'kdf(master, "sev-kik")',
        'kdf(master, "sev-kek")',
        ("tests/sevapi/test_known_answers.py::test_a_session_is_made_as_amd_writes_it",),
    ),
}
