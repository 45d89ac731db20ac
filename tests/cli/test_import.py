"""sevlaunch import, as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.host.facts import CpuFacts
from sevlaunch.host.model import Host
from tests.conftest import HOSTS, Command
from tests.libvirt.support import SEV, SUSE, domain

JSON = ("--format", "json")


def test_from_standard_input_the_profile_goes_to_standard_output(sevlaunch: Command, base: Path) -> None:
    result = sevlaunch("import", "-", input=domain(before=SEV))
    assert result.stdout.startswith("# Imported by sevlaunch from the libvirt domain in standard input")
    assert "carried, " in result.stderr
    (base / "guest.yaml").write_text(result.stdout)
    assert sevlaunch("check", base / "guest.yaml").stdout.endswith(": ok\n")


def test_with_an_output_file_the_report_goes_to_standard_output(sevlaunch: Command, base: Path) -> None:
    file = base / "suse.yaml"
    result = sevlaunch("import", SUSE, "-o", file, "--host", HOSTS / "milan-qemu-11.1.json")
    assert result.stdout.startswith(f"{file} written\n")
    assert f"{SUSE}:9: corrected: os/type@machine: this QEMU has no machine type pc-q35-2.11\n" in result.stdout
    assert result.stderr == ""
    assert sevlaunch("check", file).stdout == f"{file}: ok\n"


def test_json_has_every_outcome_with_its_line(sevlaunch: Command) -> None:
    found = sevlaunch("import", SUSE, *JSON).json
    assert (found["ok"], found["lost"], found["profile"], found["name"]) == (True, 0, None, SUSE.stem)
    assert sum(found["counts"].values()) == len(found["outcomes"])
    carried = {"kind": "carried", "line": 15, "element": "launchSecurity/cbitpos", "key": "security.cbitpos"}
    assert {**carried, "reason": ""} in found["outcomes"]
    assert "cbitpos: 47" in found["text"]


def test_strict_fails_when_something_is_lost(sevlaunch: Command, base: Path) -> None:
    file = base / "d.xml"
    file.write_text(domain("<sound model='ich9'/>"))
    lenient = sevlaunch("import", file)
    assert "not supported: devices/sound: no sound devices" in lenient.stderr
    assert sevlaunch("import", file, "--strict", check=1).stdout == lenient.stdout
    file.write_text(domain())
    sevlaunch("import", file, "--strict")


def test_what_an_encrypted_guest_can_not_have_fails_and_is_told(sevlaunch: Command, base: Path) -> None:
    file = base / "d.xml"
    file.write_text(domain("<hostdev mode='subsystem' type='pci'/>", before=SEV))
    result = sevlaunch("import", file, "-o", base / "d.yaml", check=1)
    assert ": refused: devices/hostdev: sevlaunch can't assign host devices to an encrypted guest yet" in result.stdout
    sevlaunch("check", base / "d.yaml")


def test_a_profile_that_check_refuses_is_written_and_told(sevlaunch: Command, base: Path) -> None:
    file, profile = base / "d.xml", base / "d.yaml"
    arguments = "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n<qemu:arg value='-bios'/>"
    file.write_text(domain().replace("</domain>", f"{arguments}</qemu:commandline></domain>"))
    result = sevlaunch("import", file, "-o", profile, check=1)
    line = file.read_text().splitlines().index("<qemu:arg value='-bios'/></qemu:commandline></domain>") + 1
    assert f"needs you: {profile}:" in result.stdout
    assert f"-bios is set by sevlaunch: use firmware.image (it is line {line} of {file})" in result.stdout
    assert "-bios is set by sevlaunch" in sevlaunch("check", profile, check=1).stdout
    found = sevlaunch("import", file, *JSON, check=1).json
    assert found["ok"] is False
    assert found["problems"][0]["path"] == "qemu.extra_args.0"


def test_what_the_host_lacks_counts_where_it_is_named(sevlaunch: Command, base: Path) -> None:
    file, host = base / "d.xml", base / "host.json"
    host.write_text(replace(Host.load(HOSTS / "milan-qemu-10.0.json"), cpu=CpuFacts()).to_json())
    file.write_text(domain(before=SEV))
    result = sevlaunch("import", file, "--host", host, check=1)
    assert f"needs you on {host}: " in result.stderr
    found = sevlaunch("import", file, "--host", host, *JSON, check=1).json
    assert (found["ok"], found["problems"]) == (False, [])
    assert found["lacking"]
    assert sevlaunch("import", file, "--host", HOSTS / "milan-qemu-10.0.json", *JSON).json["lacking"] == []
    # What this machine lacks is told, and is no fault of the domain.
    assert sevlaunch("import", file, *JSON).json["ok"]


def test_nothing_is_overwritten(sevlaunch: Command, base: Path) -> None:
    file = base / "mine.yaml"
    file.write_text("mine\n")
    assert "exists already" in sevlaunch("import", SUSE, "-o", file, check=2).stderr
    assert file.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (None, 2, "can't read"),
        ("", 2, "is empty"),
        ("<network/>", 3, "d.xml:1: wanted <domain>, found <network>"),
        ("<domain type='kvm'>", 3, "no well-formed XML"),
        ("<domain type='xen'><os><type>linux</type></os></domain>", 3, "wanted a QEMU domain"),
    ],
)
def test_what_is_no_domain_is_refused(
    content: str | None, code: int, message: str, sevlaunch: Command, base: Path
) -> None:
    if content is not None:
        (base / "d.xml").write_text(content)
    result = sevlaunch("import", base / "d.xml", check=code)
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_profile_that_can_not_be_written_is_told(sevlaunch: Command, base: Path) -> None:
    assert "can't write" in sevlaunch("import", SUSE, "-o", base / "no/such/folder.yaml", check=2).stderr
