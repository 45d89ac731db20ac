"""Faults in what proves a launch: the owner's side, AMD's formats, the emulated processor. As :mod:`tests.faults`."""

from __future__ import annotations

from tests.fault import Fault

ANSWERS = "tests/guest/test_attest.py::test_every_wrong_answer_is_a_no_with_its_reason_and_nothing_runs_then"
FAULTS_OF_PROOFS = {
    "a guest that runs gets a secret": Fault(
        "sevlaunch/owner/secret.py",
        'if claims.sev.state != "launch-secret":',
        "if False:",
        (
            "tests/owner/test_secret.py::test_a_launch_in_another_state_takes_none",
            "tests/owner/test_secret.py::test_no_packet_is_made_for_a_guest_that_runs",
        ),
    ),
    "a credential behind the initrd is not measured": Fault(
        "sevlaunch/owner/setup.py",
        "if initrd is None or options.initrd_hash or not said:",
        "if True:",
        ("tests/owner/test_measured_boot.py::test_the_digest_is_that_of_the_initrd_with_its_credentials",),
    ),
    "a root that was changed is taken": Fault(
        "sevlaunch/verity.py",
        "self._compare(-1, self._data, 0, block.data_block_size, block.data_blocks)",
        "return",
        ("tests/test_verity.py::test_one_byte_is_noticed_and_named",),
    ),
    "a root hash of another tree is taken": Fault(
        "sevlaunch/owner/verity.py",
        'if said.root_hash not in ("auto", found.root_hash):',
        "if False:",
        ("tests/owner/test_measured_boot.py::test_a_root_hash_of_another_tree_is_refused_by_name",),
    ),
    "an issuer of reports' keys has a key of any size": Fault(
        "sevlaunch/owner/endorsement.py",
        "if not isinstance(key, rsa.RSAPublicKey) or key.key_size != 4096:",
        "if not isinstance(key, rsa.RSAPublicKey):",
        ("tests/owner/test_report_certificates.py::test_an_issuer_whose_key_is_shorter_than_amds_is_refused",),
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
        ("tests/owner/test_report_certificates.py::test_a_certificate_of_a_key_on_another_curve_is_no_vcek",),
    ),
    "a certificate may be signed in any way": Fault(
        "sevlaunch/owner/endorsement.py",
        "if not isinstance(scheme, padding.PSS) or not isinstance(",
        "if not isinstance(",
        (
            "tests/owner/test_report_certificates.py::test_a_certificate_that_is_signed_another_way_than_amds_is_refused",
        ),
    ),
    "certificates are in force before they begin": Fault(
        "sevlaunch/owner/endorsement.py",
        "start = max(one.not_valid_before_utc for one in given)",
        "start = min(one.not_valid_before_utc for one in given)",
        ("tests/owner/test_report_certificates.py::test_certificates_have_to_be_in_force",),
    ),
    "AMD's root for one generation vouches for all": Fault(
        "sevlaunch/owner/report.py",
        "if chain.amd_generation:",
        "if False:",
        ("tests/owner/test_report_certificates.py::test_amds_root_is_of_the_processors_generation",),
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
    "a secret is wrapped for a launch that is not verified": Fault(
        "sevlaunch/owner/secret.py",
        "if not verdict.verified:",
        "if False:",
        ("tests/owner/test_secret.py::test_the_library_wraps_after_a_yes_alone_and_before_the_guest_runs",),
    ),
    "a note of another session is taken": Fault(
        "sevlaunch/owner/sealed.py",
        "if not hmac.compare_digest(found.mac, found.sealed(tik).mac):",
        "if False:",
        (
            "tests/owner/test_vouching.py::test_without_the_note_of_this_session_there_is_no_answer",
            "tests/owner/test_vouching.py::test_a_verdict_that_was_changed_is_none",
        ),
    ),
    "any root vouches for a platform": Fault(
        "sevlaunch/owner/platform.py",
        "if note.is_amds:",
        "if note.root:",
        ("tests/owner/test_vouching.py::test_who_is_believed",),
    ),
    "a rehearsal may say that it is none": Fault(
        "sevlaunch/owner/platform.py",
        "if rehearsal and claims.rehearsal:",
        "if rehearsal:",
        ("tests/owner/test_vouching.py::test_who_is_believed",),
    ),
    "a root that was not named vouches": Fault(
        "sevlaunch/owner/platform.py",
        "if note.root == trusted:",
        "if note.root:",
        ("tests/owner/test_vouching.py::test_who_is_believed",),
    ),
    "a root vouches for a chain that does not lead to it": Fault(
        "sevlaunch/owner/chain.py",
        "whole = Verdict(steps).verified and ark is not None",
        "whole = ark is not None",
        ("tests/owner/test_chain.py::test_a_root_vouches_only_for_what_verifies_up_to_it",),
    ),
    "the verdict about another launch is enough": Fault(
        "sevlaunch/owner/answer.py",
        "if not hmac.compare_digest(found.measurement, wanted.measurement):",
        "if False:",
        ("tests/owner/test_vouching.py::test_secret_asks_for_a_yes_about_this_launch",),
    ),
    "a verdict that says no is enough": Fault(
        "sevlaunch/owner/answer.py",
        "if not found.verified:",
        "if False:",
        ("tests/owner/test_vouching.py::test_secret_asks_for_a_yes_about_this_launch",),
    ),
    "a guest without encryption matches": Fault(
        "sevlaunch/owner/verify.py",
        "matches = bool(matching) and claims.sev.enabled",
        "matches = bool(matching)",
        ("tests/owner/test_verify.py::test_each_difference_is_a_no_with_its_reason",),
    ),
    "a measurement that matches is enough": Fault(
        "sevlaunch/owner/verify.py",
        "return self.matches and not self.failed",
        "return self.matches",
        ("tests/owner/test_verify.py::test_each_difference_is_a_no_with_its_reason",),
    ),
    "any firmware API is new enough": Fault(
        "sevlaunch/owner/verify.py",
        "known_api is not None and known_api >= minimum,",
        "known_api is not None,",
        ("tests/owner/test_verify.py::test_each_difference_is_a_no_with_its_reason",),
    ),
    "a certificate may have bytes that nothing reads": Fault(
        "sevlaunch/sevapi/certificate.py",
        "if certificate.to_bytes() != content:",
        "if False:",
        ("tests/sevapi/test_known_answers.py::test_what_is_no_certificate_gets_the_processors_answer",),
    ),
    "a certificate may have a signature that nobody asked for": Fault(
        "sevlaunch/owner/chain.py",
        "if len(used) != len(signers):",
        "if False:",
        ("tests/owner/test_chain.py::test_an_empty_signature_slot_holds_nothing",),
    ),
    "with a root given AMD's are trusted, too": Fault(
        "sevlaunch/owner/chain.py",
        "trusted=fingerprint(root.public_key) if root else None)",
        "trusted=None)",
        ("tests/owner/test_chain.py::test_with_a_root_given_amds_is_not_trusted",),
    ),
    "another key's CEK takes the place of the platform's": Fault(
        "sevlaunch/owner/chain.py",
        "if len(signed) == 1 and one.key == other.key:",
        "if len(signed) == 1:",
        ("tests/owner/test_chain.py::test_of_two_ceks_the_signed_one_is_of_the_same_key",),
    ),
    "a session opens for another policy": Fault(
        "sevlaunch/sevapi/session.py",
        'if not hmac.compare_digest(hmac.digest(keys.tik, struct.pack("<I", policy), "sha256"), policy_mac):',
        "if False:",
        ("tests/sevapi/test_known_answers.py::test_a_session_is_unwrapped_by_the_one_it_was_made_for",),
    ),
    "a session opens that was changed": Fault(
        "sevlaunch/sevapi/session.py",
        'if not hmac.compare_digest(hmac.digest(kik, wrapped, "sha256"), wrap_mac):',
        "if False:",
        ("tests/sevapi/test_known_answers.py::test_a_session_is_unwrapped_by_the_one_it_was_made_for",),
    ),
    "both generations of VMSA pages have x87's reset value": Fault(
        "sevlaunch/sevapi/vmsa.py",
        "    older[_X87_FCW] = bytes(2)\n",
        "",
        ("tests/owner/test_verify.py::test_sevctls_published_measurements_come_out_the_same",),
    ),
    "an ID key of any algorithm signs": Fault(
        "sevlaunch/sevapi/id_block.py",
        "return self.id_key_algorithm == ECDSA_P384_SHA384 and _verifies(",
        "return _verifies(",
        (
            "tests/sevapi/test_layouts.py"
            "::test_signatures_under_an_id_block_are_of_the_one_algorithm_and_of_keys_on_p384",
        ),
    ),
    "an ID block of another launch is verified": Fault(
        "sevlaunch/flows/completion.py",
        "if block.digest not in expected.digests.values():",
        "if False:",
        ("tests/rehearsal/test_id_blocks.py::test_what_can_not_be_verified_so_is_told_before_the_start",),
    ),
    "others may read an ID key": Fault(
        "sevlaunch/files.py",
        "status.st_mode & 0o077",
        "status.st_mode & 0o070",
        ("tests/owner/test_id_block.py::test_a_key_that_others_may_read_is_refused",),
    ),
    "a guest takes init-data that its report does not show": Fault(
        "sevlaunch/image/seed_check.py",
        "if found != wanted:",
        "if False:",
        ("tests/image/test_seed_check.py::test_anything_else_is_refused_by_name_and_gives_nothing",),
    ),
    "a guest takes a seed with a file that nothing binds": Fault(
        "sevlaunch/image/seed_check.py",
        "        if name not in bound:\n",
        "        if False:\n",
        ("tests/image/test_seed_check.py::test_anything_else_is_refused_by_name_and_gives_nothing",),
    ),
    "HOST_DATA is the beginning of another digest": Fault(
        "sevlaunch/profile/initdata_values.py",
        "self.digest[:HOST_DATA_BYTES]",
        "self.digest[-HOST_DATA_BYTES:]",
        ("tests/profile/test_initdata.py::test_host_data_is_the_digest_of_the_bytes_as_they_are",),
    ),
    "a report is answered that nothing was asked of": Fault(
        "sevlaunch/owner/report.py",
        "    wanted.require_asked()\n",
        "",
        (
            "tests/owner/test_report_demands.py::test_an_answer_that_would_prove_nothing_is_refused_unless_it_is_waived_by_name",
        ),
    ),
    "an ASK that AMD revoked is trusted": Fault(
        "sevlaunch/owner/revocation.py",
        "return [*checks, Check(_NAME, not gone,",
        "return [*checks, Check(_NAME, True,",
        ("tests/owner/test_revocation.py::test_what_the_ark_revoked_is_refused",),
    ),
    "a revocation list is anybody's": Fault(
        "sevlaunch/owner/revocation.py",
        "ours = [one for one in lists if _is_signed_by(one, chain.root)]",
        "ours = list(lists)",
        ("tests/owner/test_revocation.py::test_a_list_that_is_not_the_arks_covers_nothing",),
    ),
    "a revocation list of last year is as good": Fault(
        "sevlaunch/owner/revocation.py",
        "current = start <= at and (end is None or at <= end)",
        "current = True",
        ("tests/owner/test_revocation.py::test_a_list_has_to_be_in_force",),
    ),
    "one of two mitigation vectors is enough": Fault(
        "sevlaunch/owner/report_wanted.py",
        "enough = vector & wanted.mitigations == wanted.mitigations",
        "enough = bool(vector & wanted.mitigations)",
        ("tests/owner/test_report_demands.py::test_all_that_a_report_says_can_be_demanded_and_is_shown",),
    ),
    "a policy may allow a migration agent that is not there": Fault(
        "sevlaunch/owner/report_wanted.py",
        "none = not allowed_one and report",
        "none = report",
        ("tests/owner/test_report_demands.py::test_all_that_a_report_says_can_be_demanded_and_is_shown",),
    ),
    "attest takes a report over any nonce": Fault(
        "sevlaunch/cli/attest.py",
        "report_data=fetched.nonce)",
        "report_data=None, any_report_data=True)",
        (ANSWERS,),
    ),
    "attest goes on after a no": Fault(
        "sevlaunch/cli/attest.py",
        "if not verdict.verified:",
        "if False:",
        (ANSWERS,),
    ),
    "init-data is read, and not asked for": Fault(
        "sevlaunch/cli/owner/report_options.py",
        "read_initdata_file(given.initdata).host_data\n",
        "read_initdata_file(given.initdata) and None\n",
        (ANSWERS,),
    ),
    "a guest with vsock has no way in": Fault(
        "sevlaunch/flows/attest.py",
        "(record.ssh is not None or record.vsock_cid is not None)",
        "record.ssh is not None",
        ("tests/guest/test_attest.py::test_a_guest_with_vsock_is_asked_over_it",),
    ),
    "any change explains a digest": Fault(
        "sevlaunch/owner/search.py",
        "if hmac.compare_digest(computed, digest):",
        "if True:",
        ("tests/owner/test_snp_search.py::test_a_wrong_set_up_gets_its_one_right_explanation",),
    ),
    "nobody leaves credentials out": Fault(
        "sevlaunch/owner/explain.py",
        "found = {WITHOUT_CREDENTIALS: joined_hash(file, {})}",
        "found: dict[str, bytes] = {}",
        ("tests/owner/test_snp_search.py::test_credentials_that_were_left_out_of_the_initrd_are_found",),
    ),
    "a lock forgets the credentials behind its initrd": Fault(
        "sevlaunch/owner/expected_report.py",
        "initrd = lock.initrd_with_credentials or (lock.initrd.sha256 if lock.initrd else None)",
        "initrd = lock.initrd.sha256 if lock.initrd else None",
        ("tests/owner/test_snp_search.py::test_a_lock_with_credentials_finds_that_they_were_left_out",),
    ),
    "what may be in an unreadable file is a no": Fault(
        "sevlaunch/cli/owner/report_options.py",
        "if verdict.lacks and found.skipped:",
        "if False:",
        (
            "tests/owner/test_collected.py::test_what_may_be_in_a_file_that_cant_be_read_leaves_no_answer",
            "tests/owner/test_report_command.py::test_files_that_are_no_certificates_are_named",
        ),
    ),
    "bytes behind a signature are not looked at": Fault(
        "sevlaunch/owner/report.py",
        "reserved += report.behind_signature_set(content)",
        "reserved += []",
        ("tests/owner/test_collected.py::test_a_byte_behind_the_signature_is_called_that",),
    ),
    "a processor that hides itself is one that zeros stand for": Fault(
        "sevlaunch/owner/report_wanted.py",
        "known = any(report.chip_id) and report.chip_id in pinned",
        "known = report.chip_id in pinned",
        ("tests/owner/test_report_demands.py::test_a_processor_that_is_hidden_is_none_that_is_wanted",),
    ),
    "a policy may restrict less than the one that is the most": Fault(
        "sevlaunch/owner/report_wanted.py",
        " or most & SNP_RESTRICTIONS & ~policy",
        "",
        ("tests/owner/test_report_demands.py::test_a_policy_allows_no_more_and_restricts_no_less",),
    ),
    "a policy affirms a launch with whatever host data": Fault(
        "sevlaunch/owner/rego.py",
        "if input.init_data == launch.init_data",
        "if true",
        (
            "tests/owner/test_reference_values.py::test_a_policy_of_its_own_affirms_the_launch_and_no_other",
            "tests/owner/test_reference_values.py::test_host_data_go_with_their_own_launch",
        ),
    ),
    "a nonce is good more than once": Fault(
        "examples/release_key.py",
        "self._until.pop(nonce, 0.0)",
        "self._until.get(nonce, 0.0)",
        (
            "tests/owner/test_release_key.py::test_a_thousand_who_are_not_the_guest_get_nothing",
            "tests/owner/test_release_key.py::test_nonces_are_bounded",
        ),
    ),
}
