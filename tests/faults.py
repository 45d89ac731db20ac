"""Faults that a test has to notice: what stands in a file, what is put in its place, and who notices."""

from __future__ import annotations

from tests.fault import Fault
from tests.faults_of_proofs import FAULTS_OF_PROOFS

FAULTS = {
    **FAULTS_OF_PROOFS,
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
        ("tests/guest/test_damaged_folder.py::test_a_file_of_somebody_elses_is_not_read",),
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
    "a session is made for whoever made the PDH": Fault(
        "sevlaunch/cli/owner/session.py",
        "written = not refused and (verdict.is_amds or insecure)",
        "written = not refused",
        ("tests/owner/test_session.py::test_an_unknown_root_stops_the_command_unless_it_is_given",),
    ),
    "a launch is verified on the host that runs the guest": Fault(
        "sevlaunch/cli/owner/verify.py",
        "if insecure or claims.rehearsal or not claims.measurement:",
        "if True:",
        ("tests/owner/test_verify.py::test_verifying_where_the_guest_runs_is_refused",),
    ),
    "an image is taken whatever its bytes": Fault(
        "sevlaunch/image/fetch.py",
        "if found[wanted.algorithm] == wanted.digest:",
        "if True:",
        ("tests/image/test_fetch.py::test_other_bytes_are_refused_and_gone",),
    ),
    "a key that has expired signs": Fault(
        "sevlaunch/image/signature.py",
        '"[GNUPG:] GOODSIG " in status and brings_text',
        "brings_text",
        ("tests/image/test_proof.py::test_what_does_not_hold_is_refused",),
    ),
    "what stands around a signed text counts": Fault(
        "sevlaunch/image/proof.py",
        'content = signed.content if source.signed == "inline" else content',
        "pass",
        ("tests/image/test_proof.py::test_checksums_that_are_signed_within",),
    ),
    "a signature that is missing is done without": Fault(
        "sevlaunch/image/proof.py",
        'if source.signed != "image" and source.can_be_checked:',
        "if False:",
        ("tests/image/test_proof.py::test_what_does_not_hold_is_refused",),
    ),
    "checksums may come unencrypted": Fault(
        "sevlaunch/image/proof.py",
        "if not (is_private(source.checksums) or",
        "if not (True or",
        ("tests/image/test_proof.py::test_what_comes_unencrypted_and_unsigned_vouches_for_nothing",),
    ),
    "a redirection may lead out of encryption": Fault(
        "sevlaunch/image/web.py",
        'if req.type == "https" and urlsplit(newurl).scheme != "https":',
        "if False:",
        ("tests/image/test_encryption.py::test_no_redirection_leads_out_of_encryption",),
    ),
    "a cache of somebody else's is used": Fault(
        "sevlaunch/image/store.py",
        "elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):",
        "elif False:",
        ("tests/image/test_cache.py::test_a_folder_that_others_may_write_is_not_used",),
    ),
    "an image that was changed is used": Fault(
        "sevlaunch/image/store.py",
        "fits = record is not None and (record.size, record.modified) == (image.st_size, image.st_mtime_ns)",
        "fits = record is not None",
        ("tests/image/test_cache.py::test_a_file_that_was_changed_is_none_and_is_fetched_again",),
    ),
    "an overlay is laid on whatever image is there": Fault(
        "sevlaunch/guest/overlays.py",
        "    if then.is_that_of(now):\n        return\n",
        "    return\n",
        ("tests/guest/test_overlays.py::test_an_image_that_changed_under_its_overlay_is_refused",),
    ),
    "two guests have one overlay": Fault(
        "sevlaunch/guest/overlays.py",
        "    if not free:\n",
        "    if False:\n",
        ("tests/guest/test_overlays.py::test_an_overlay_is_for_one_guest_at_a_time",),
    ),
    "an image's header names what is below it": Fault(
        "sevlaunch/plan/disk_image.py",
        'if self.stands_alone and self.format.value == "qcow2":',
        "if False:",
        ("tests/plan/test_overlays.py::test_what_is_written_goes_on_top_and_no_header_is_believed",),
    ),
    "a file that was exchanged is taken into a disk": Fault(
        "sevlaunch/image/folder.py",
        "flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC",
        "flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC",
        ("tests/image/test_folder.py::test_a_file_that_is_exchanged_while_it_is_read_is_not_followed",),
    ),
    "a guest that was verified is restarted unverified": Fault(
        "sevlaunch/flows/restart.py",
        "if started.verified and record.guest_type.measured_by_host:",
        "if False:",
        ("tests/guest/test_restart.py::test_a_launch_that_is_bound_to_a_session_is_its_owners_to_repeat",),
    ),
    "a guest is taken down for a profile that is refused": Fault(
        "sevlaunch/flows/restart.py",
        "    check_files(plan)\n",
        "",
        ("tests/guest/test_restart.py::test_a_profile_that_does_not_work_any_more_costs_nothing",),
    ),
    "an image may name another file": Fault(
        "sevlaunch/image/inspection.py",
        "if facts.leans_on:",
        "if False:",
        ("tests/image/test_hostile_images.py::test_it_is_refused_when_it_is_fetched_and_when_it_is_a_file",),
    ),
    "a seed says when it was made": Fault(
        "sevlaunch/image/iso9660.py",
        "image[start + _VOLUME_DATES.start : start + _VOLUME_DATES.stop] = _NO_VOLUME_DATES",
        "pass",
        ("tests/image/test_seed.py::test_no_date_is_left_in_an_image",),
    ),
    "a key that was found makes another instance": Fault(
        "sevlaunch/image/seed.py",
        "for name, text in self._documents(self.instance_id, found).items()",
        "for name, text in self._documents(f'{self.instance_id}{len(found)}', found).items()",
        ("tests/image/test_seed.py::test_keys_that_were_found_are_no_new_instance",),
    ),
    "a command line repeats a credential": Fault(
        "sevlaunch/plan/formats.py",
        "if file.secret:",
        "if False:",
        (
            "tests/guest/test_first_boot.py::test_credentials_are_in_files_that_nobody_else_reads_and_in_no_command_line",
        ),
    ),
    "the place of a value repeats a password's hash": Fault(
        "sevlaunch/profile/loader.py",
        'if path.partition(".")[0] in _SECRET else',
        "if False else",
        (
            "tests/guest/test_first_boot.py::"
            "test_a_guest_has_a_seed_that_nobody_else_reads_and_no_other_place_has_what_is_in_it",
        ),
    ),
    "an agent's certificates log in": Fault(
        "sevlaunch/host/ssh_keys.py",
        "and _CERTIFICATE not in kind",
        "",
        ("tests/host/test_ssh_keys.py::test_keys_of_security_keys_count_and_certificates_do_not",),
    ),
    "another host key than at the first contact is taken": Fault(
        "sevlaunch/guest/ssh.py",
        '"StrictHostKeyChecking": "accept-new",',
        '"StrictHostKeyChecking": "no",',
        ("tests/guest/test_ssh.py::test_a_guest_without_a_port_is_reached_over_vsock",),
    ),
    "a command's first word is an option of ssh": Fault(
        "sevlaunch/guest/ssh.py",
        'words += ["--", way.host]',
        "words += [way.host]",
        ("tests/guest/test_ssh.py::test_a_guest_without_a_port_is_reached_over_vsock",),
    ),
    "a port is told that leads elsewhere": Fault(
        "sevlaunch/guest/user_network.py",
        "if replace(one, port=0) == wanted:",
        "if True:",
        ("tests/guest/test_ports.py::test_a_port_that_qemu_does_not_tell_is_an_error",),
    ),
}
