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
}
