"""What a profile makes of the kernel that it names, or that is taken from an image: options, refusals, warnings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sevlaunch.errors import ProfileError
from sevlaunch.host.facts import BootFacts, UkiFacts
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.direct_boot import refusal
from sevlaunch.plan.formats import format_plan
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests.conftest import HOSTS

OWN = UkiFacts(name="The System", uname="6.12", cmdline="root=/dev/vda quiet", initrd_bytes=7)
TAKEN = BootFacts(
    kernel="/cache/k",
    initrd="/cache/i",
    cmdline="root=UUID=1-2 ro",
    places={
        "kernel": "/vmlinuz in partition 1 (ext4)",
        "initrd": "/initrd.img in partition 1 (ext4)",
        "cmdline": "grub.cfg",
    },
    roots=["UUID=1-2", "LABEL=rootfs"],
    all_named=True,
)
A_UKI = BootFacts(kernel="/cache/u", cmdline=OWN.cmdline, uki=OWN, places={"kernel": "/EFI/Linux/a.efi in partition 1"})


def plan(boot: str, facts: BootFacts | None, rest: str = "") -> Plan:
    """The plan of a profile with one disk."""
    host = replace(Host.load(HOSTS / "milan-qemu-10.0.json"), boot=facts)
    return resolve(
        loads(f"name: g\ndisks: [{{image: /d.raw, format: raw}}]\nboot: {boot}\n{rest}", file="g.yaml"), host
    )


def handed(found: Plan) -> dict[str, str]:
    """What QEMU is handed."""
    words = argv(found)
    return {word: words[words.index(word) + 1] for word in ("-kernel", "-initrd", "-append") if word in words}


@pytest.mark.parametrize(
    ("boot", "facts", "wanted"),
    [
        ("{from: disk0}", TAKEN, ("/cache/k", "/cache/i", "root=UUID=1-2 ro")),
        ("{from: disk0, cmdline: root=LABEL=rootfs}", TAKEN, ("/cache/k", "/cache/i", "root=LABEL=rootfs")),
        ("{from: disk0, cmdline_extra: quiet}", TAKEN, ("/cache/k", "/cache/i", "root=UUID=1-2 ro quiet")),
        ("{from: disk0, cmdline: root=/x, cmdline_extra: a}", TAKEN, ("/cache/k", "/cache/i", "root=/x a")),
        ("{from: disk0}", A_UKI, ("/cache/u", None, None)),
        ("{from: disk0, cmdline_extra: a=b}", A_UKI, ("/cache/u", None, "root=/dev/vda quiet a=b")),
        ("{from: disk0}", replace(A_UKI, cmdline="root=/x"), ("/cache/u", None, "root=/x")),
        ("{kernel: /u}", replace(A_UKI, kernel="/u"), ("/u", None, None)),
        ("{kernel: /u, cmdline: root=/x}", replace(A_UKI, kernel="/u"), ("/u", None, "root=/x")),
        ("{kernel: /u, cmdline_extra: a}", replace(A_UKI, kernel="/u"), ("/u", None, "root=/dev/vda quiet a")),
        ("{kernel: /k, initrd: /i, cmdline: c, cmdline_extra: d}", BootFacts(kernel="/k"), ("/k", "/i", "c d")),
        ("{kernel: /k, cmdline_extra: d}", None, ("/k", None, "d")),
        ("{kernel: /k}", None, ("/k", None, None)),
    ],
)  # fmt: skip
def test_what_qemu_is_handed(boot: str, facts: BootFacts | None, wanted: tuple[str | None, ...]) -> None:
    keys = ("-kernel", "-initrd", "-append")
    assert handed(plan(boot, facts)) == {
        key: value for key, value in zip(keys, wanted, strict=True) if value is not None
    }


SECURE = "firmware: {secure_boot: true}\nmachine: q35"


@pytest.mark.parametrize(
    ("boot", "facts", "rest", "key", "reason"),
    [
        ("{from: disk0}", None, "", "from", "nobody has looked into the image of disk0"),
        ("{from: disk0}", BootFacts(problem="partition 1 is xfs", hint="h"), "", "from", "partition 1 is xfs"),
        (
            "{from: disk0}",
            replace(TAKEN, cmdline=None),
            "",
            "from",
            "/vmlinuz in partition 1 (ext4) of disk0 has no command line",
        ),
        ("{kernel: /u, initrd: /i}", A_UKI, "", "initrd", "QEMU hands it no other"),
        ("{kernel: /u}", BootFacts(problem="it is damaged", hint="h"), "", "kernel", "it is damaged"),
        ("{kernel: /u, cmdline: x}", A_UKI, SECURE, "cmdline", "under secure boot it takes no other"),
        ("{from: disk0, cmdline_extra: x}", A_UKI, SECURE, "cmdline_extra", "under secure boot it takes no other"),
    ],
)
def test_what_can_t_be_booted_is_refused_where_it_stands(
    boot: str, facts: BootFacts | None, rest: str, key: str, reason: str
) -> None:
    with pytest.raises(ProfileError) as error:
        plan(boot, facts, rest)
    (found,) = [problem for problem in error.value.problems if problem.path.startswith("boot.")]
    assert found.path == f"boot.{key}" and reason in found.message and found.hint
    assert found.location == f"g.yaml:3:{f'boot: {boot}'.index(f'{key}: ') + len(key) + 3}"


def test_a_unified_image_without_a_command_line_takes_one_under_secure_boot() -> None:
    with_none = replace(A_UKI, cmdline=None, uki=replace(OWN, cmdline=None))
    profile = loads(f"name: g\nboot: {{kernel: /u, cmdline: x}}\n{SECURE}", file="g.yaml").profile
    assert refusal(profile, with_none) is None and refusal(profile, A_UKI) is not None


@pytest.mark.parametrize(
    ("boot", "facts", "warned"),
    [
        ("{from: disk0}", TAKEN, None),
        (
            "{from: disk0}",
            replace(TAKEN, roots=["UUID=3"]),
            "root=UUID=1-2, and the image of disk0 has no such file system",
        ),
        ("{from: disk0}", replace(TAKEN, roots=["UUID=3"], all_named=False), None),
        ("{from: disk0, cmdline: root=LABEL=rootfs}", TAKEN, None),
        ("{from: disk0, cmdline: root=LABEL=ROOTFS}", TAKEN, "root=LABEL=ROOTFS, and the image of disk0 has no such"),
        ("{from: disk0, cmdline: root=UUID=AB}", replace(TAKEN, roots=["UUID=ab"]), None),
        ("{from: disk0, cmdline: root=/dev/vda1}", TAKEN, None),
        (
            "{from: disk0, cmdline: root=/dev/sda1}",
            TAKEN,
            "root=/dev/sda1, and no disk of the guest is called so: disk0",
        ),
        ("{from: disk0, cmdline: quiet}", TAKEN, "says nothing of the root file system (root=): 'quiet'"),
        ("{from: disk0, cmdline: roothash=12}", TAKEN, None),
        (
            "{from: disk0}",
            replace(TAKEN, cautions=["partition 1: it was not unmounted"]),
            "disk0, partition 1: it was not",
        ),
        (
            "{kernel: /u, cmdline: root=/x}",
            A_UKI,
            "takes the place of the unified kernel image's own, 'root=/dev/vda quiet'",
        ),
        ("{kernel: /u, cmdline: '@1 root=/x'}", A_UKI, None),
        ("{kernel: /u, cmdline_extra: x}", A_UKI, None),
        ("{kernel: /k, cmdline: x}", BootFacts(kernel="/k"), None),
    ],
)
def test_what_is_doubtful_is_warned_of(boot: str, facts: BootFacts, warned: str | None) -> None:
    found = [line for line in plan(boot, facts).warnings if "disk0" in line or "boot." in line or "root" in line]
    assert (warned is None and found == []) or (warned is not None and warned in found[0])


def test_explain_says_where_it_is_from_and_what_a_unified_image_says_of_itself() -> None:
    text = format_plan(plan("{from: disk0}", TAKEN), "explain")
    assert "host: /vmlinuz in partition 1 (ext4) of disk0" in text and "host: grub.cfg of disk0" in text
    text = format_plan(plan("{from: disk0}", A_UKI), "explain")
    says = "unified kernel image: The System; Linux 6.12; initrd of 7 bytes; command line 'root=/dev/vda quiet'"
    assert f"host: /EFI/Linux/a.efi in partition 1 of disk0; {says}" in text
    assert "profile: g.yaml:3:16; unified kernel image" in format_plan(plan("{kernel: /u}", A_UKI), "explain")


def test_another_account_gets_copies_in_the_guests_folder() -> None:
    facts: Any = TAKEN
    found = plan("{from: disk0, cmdline_extra: x}", facts, "run_as: nobody")
    assert handed(found)["-kernel"] == str(found.folder / "kernel")
    copies = {file.source: file.path for file in found.files}
    assert copies == {"/cache/k": str(found.folder / "kernel"), "/cache/i": str(found.folder / "initrd")}
    assert f"install -m 0600 /cache/k {found.folder}/kernel" in format_plan(found, "shell")
    assert {file.path for file in found.needs.files if file.by_launcher} >= {"/cache/k", "/cache/i"}
    assert found.boot.kernel and found.boot.kernel.value == "/cache/k" and not Path("/cache/k").exists()


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("boot: {from: disk1}", "boot.from", "there is no disk1; the profile has disk0 to disk0"),
        ("boot: {from: net0}", "boot.from", "wanted a disk such as disk0, found 'net0'"),
        ("boot: {from: disk0, kernel: k}", "boot.kernel", "kernel is taken from disk0"),
        ("boot: {from: disk0, initrd: k}", "boot.initrd", "initrd is taken from disk0"),
        ("boot: {cmdline_extra: k}", "boot.cmdline_extra", "cmdline_extra needs boot.kernel, or boot.from"),
        ("boot: {initrd: k}", "boot.initrd", "initrd needs boot.kernel"),
        (
            "security: {type: sev-snp, kernel_hashes: true}",
            "security.kernel_hashes",
            "it needs boot.kernel, or boot.from",
        ),
    ],
)
def test_mistakes_of_a_profile(text: str, path: str, reason: str) -> None:
    with pytest.raises(ProfileError) as error:
        loads(f"name: g\ndisks: [{{image: /d.raw, format: raw}}]\n{text}\n", file="g.yaml")
    (found,) = error.value.problems
    assert found.path == path and reason in found.message


@pytest.mark.parametrize("disk", ["{folder: /d}", "{path: /d, format: luks, luks_key: /k}"])
def test_a_disk_that_nothing_is_taken_from(disk: str) -> None:
    with pytest.raises(ProfileError, match=r"boot\.kernel"):
        loads(f"name: g\ndisks: [{disk}]\nboot: {{from: disk0}}\n", file="g.yaml")


def test_a_disk_that_the_guest_writes_to_is_warned_of_where_it_is_measured() -> None:
    def warnings(disk: str, security: str) -> list[str]:
        text = f"name: g\nsecurity: {security}\ndisks: [{disk}]\nboot: {{from: disk0}}\n"
        return [str(one) for one in loads(text, file="g.yaml").warnings if "disk0" in str(one)]

    measured = "{type: sev-snp, kernel_hashes: true}"
    assert "the next launch has another digest" in warnings("{path: /d}", measured)[0]
    assert warnings("{image: /d}", measured) == warnings("{path: /d, read_only: true}", measured) == []
    assert warnings("{path: /d}", "none") == []
