"""Clock, SMBIOS, fw_cfg, watchdog, panic device and serial ports: what the plan gives, and every real QEMU takes."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from sevlaunch.errors import HostError, ProfileError
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads
from tests import needs
from tests.conftest import HOSTS, VERSIONS, Command, qemu_binary_of
from tests.guest.support import JSON, with_qemu

ALL = """
clock: {base: 2026-01-31T12:00:00, catch_up: true, hpet: false}
smbios:
  bios: {vendor: "a, b=c", date: 01/31/2026}
  system: {manufacturer: m, product: p, version: v, serial: "s,1", sku: k, family: f}
  board: {product: "x=y", location: l}
  chassis: {asset: a}
  oem_strings: ["io.example:key=a,b", second]
fw_cfg: [{name: opt/org.example/text, text: "a,b=c"}, {name: opt/org.example/file, file: FILE}]
watchdog: {model: i6300esb, action: pause}
panic: true
serial_ports: 3
"""


def arguments(text: str, version: str = "10.0") -> list[str]:
    """The command line of a profile on the recorded Milan."""
    return argv(resolve(loads(text, file="p.yaml"), Host.load(HOSTS / f"milan-qemu-{version}.json")))


def test_each_part_is_one_value_whatever_stands_in_it() -> None:
    found = arguments(ALL.replace("FILE", "'/a,b'"))
    for option, value in (
        ("-rtc", "base=2026-01-31T12:00:00,driftfix=slew"),
        ("-smbios", "type=0,vendor=a,, b=c,date=01/31/2026"),
        ("-smbios", "type=1,manufacturer=m,product=p,version=v,serial=s,,1,sku=k,family=f"),
        ("-smbios", "type=2,product=x=y,location=l"),
        ("-smbios", "type=3,asset=a"),
        ("-smbios", "type=11,value=io.example:key=a,,b,value=second"),
        ("-fw_cfg", "name=opt/org.example/text,string=a,,b=c"),
        ("-fw_cfg", "name=opt/org.example/file,file=/a,,b"),
        ("-device", "i6300esb,bus=pcie.0,addr=0x3"),
        ("-action", "watchdog=pause"),
        ("-device", "pvpanic"),
        ("-device", "isa-serial,chardev=serial3,index=3"),
    ):
        assert (option, value) in pairwise(found), value
    assert "hpet=off" in found[found.index("-machine") + 1]


def test_a_machine_that_this_qemu_has_not_is_judged_by_its_name() -> None:
    text = "machine: pc-q35-8.1\nwatchdog: {model: itco}\niommu: {type: intel}\ncpu: {count: 300}"
    with pytest.raises(HostError) as caught:
        arguments(text, "7.2")
    assert "QEMU 7.2.22 has no machine 'pc-q35-8.1'" in caught.value.problems[0].message


def test_a_file_that_qemu_reads_is_a_need() -> None:
    plan = resolve(loads(ALL.replace("FILE", "'/a,b'")), Host.load(HOSTS / "milan-qemu-10.0.json"))
    assert "/a,b" in [file.path for file in plan.needs.files]


def test_a_guest_that_asks_for_none_has_none() -> None:
    found = arguments("name: g\n")
    assert {"-rtc", "-smbios", "-fw_cfg", "-action"}.isdisjoint(found)


@pytest.mark.parametrize(
    ("machine", "watchdog"), [("q35", "ICH9-LPC.noreboot=off"), ("pc", "i6300esb,bus=pci.0,addr=0x3")]
)
def test_the_watchdog_is_the_machines_own_where_it_has_one(machine: str, watchdog: str) -> None:
    assert watchdog in arguments(f"machine: {machine}\nwatchdog: true\n")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_every_qemu_takes_all_of_them(machine: str, version: str, sevlaunch: Command, base: Path) -> None:
    file, image, profile = base / "a,b", base / "image.fd", base / "all.yaml"
    file.write_text("content")
    image.write_bytes(bytes(1 << 20))
    rest = ALL.replace("FILE", f"'{file}'")
    profile.write_text(f"machine: {machine}\naccel: tcg\nmemory: 64M\nfirmware: {{image: {image}}}\n{rest}")
    sevlaunch("up", profile, "--paused", *with_qemu(qemu_binary_of(version)))
    sockets = {one.name for one in (sevlaunch.runtime / "all/qemu").iterdir() if one.is_socket()}
    assert {"serial1.sock", "serial2.sock", "serial3.sock"} <= sockets
    clock = sevlaunch("qmp", "all", "qom-get", json.dumps({"path": "/machine", "property": "rtc-time"}), *JSON).json
    assert (clock["tm_year"], clock["tm_mon"], clock["tm_mday"]) == (126, 0, 31)


def test_an_encrypted_guest_is_launched_with_all_of_them_and_told_what_is_not_measured(
    sevlaunch: Command, base: Path
) -> None:
    needs.rehearsal()
    file, profile = base / "file", base / "all.yaml"
    file.write_text("content")
    image = needs.amdsev_image()
    profile.write_text(
        f"security: sev-snp\nmemory: 64M\nfirmware: {{image: {image}}}\n{ALL.replace('FILE', str(file))}"
    )
    done = sevlaunch("up", profile, "--rehearse", "--paused", *with_qemu(qemu_binary_of("10.0")))
    for told in ("fw_cfg", "smbios"):
        assert f"{told} is what the host tells the guest: no measurement says" in done.stderr


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("fw_cfg: [{name: opt/a}]", "fw_cfg.0", "one of file and text, found neither"),
        ("fw_cfg: [{name: opt/a, text: b, file: /c}]", "fw_cfg.0", "one of file and text, found both"),
        (
            "fw_cfg: [{name: opt/a, text: b}, {name: opt/a, text: c}]",
            "fw_cfg.1.name",
            "two files have the name 'opt/a'",
        ),
        ("fw_cfg: [{name: etc/a, text: b}]", "fw_cfg.0.name", "wanted opt/ and at most 51"),
        (f"fw_cfg: [{{name: opt/{'a' * 52}, text: b}}]", "fw_cfg.0.name", "wanted opt/ and at most 51"),
        ("clock: {base: 2026-13-01}", "clock.base", "wanted utc, localtime, or a time"),
        ("clock: {base: 1969-01-01}", "clock.base", "from 1970 on"),
        ("smbios: {system: {serial: ''}}", "smbios.system.serial", "wanted 1 to 255 printable characters"),
        ("serial_ports: 4", "serial_ports", "at most 3"),
        ("machine: pc\nwatchdog: {model: itco}", "watchdog.model", "use i6300esb"),
    ],
)
def test_what_qemu_would_refuse_is_said_in_the_profiles_terms(text: str, path: str, said: str) -> None:
    with pytest.raises(ProfileError) as caught:
        loads(f"{text}\n")
    ((found_path, found),) = [(problem.path, problem.message) for problem in caught.value.problems]
    assert found_path == path
    assert said in found
