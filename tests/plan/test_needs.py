"""What a guest needs of its host is said by its parts alone: unit, preflight and doctor read it, and know no device."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

import sevlaunch.plan.resolve as resolving
from sevlaunch.doctor.fitness import examine_for
from sevlaunch.doctor.preflight import check_files
from sevlaunch.doctor.tree import Result
from sevlaunch.errors import HostError, ProfileError
from sevlaunch.host.facts import Device, HelperFacts, PlatformFacts
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv, choices
from sevlaunch.plan.context import Context
from sevlaunch.plan.formats import as_json, explain, lines, shell
from sevlaunch.plan.needs import Companion, NeededDevice, Needs, merged
from sevlaunch.plan.option import Choice, Option, Parameter, flag, rule
from sevlaunch.plan.part import Part, virtio_parameters
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.plan.unit import Service, systemd_unit
from sevlaunch.profile.loader import LoadedProfile, loads
from tests.conftest import HOSTS

SERVICE = Service(("sevlaunch",), ("/p.yaml",), False)


# As a helper does: it listens on its socket, --socket PATH or --socket-path=PATH.
HELPER = """\
#!/usr/bin/env python3
import socket, sys
with open({log!r}, "a") as log:
    print(*sys.argv, file=log)
words = dict(word.partition("=")[::2] for word in sys.argv) | dict(zip(sys.argv, sys.argv[1:]))
socket.socket(socket.AF_UNIX).bind(words.get("--socket") or words["--socket-path"])
"""


class CrystalPlan(Part, frozen=True, kw_only=True):
    """A made-up virtio device that sees the future through a device of the host."""

    node: str

    @property
    def needs(self) -> Needs:
        """The crystal."""
        return Needs(devices=(NeededDevice(self.node, "The guest sees the future.", "buy a crystal", write=False),))

    def options(self) -> Iterator[Option]:
        """The device."""
        driver = Parameter("", "vhost-crystal-pci", rule("made up"))
        yield Option("-device", (driver, *virtio_parameters(Choice(True, rule("made up")))))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """The recorded Milan with QEMU 10.0 and folders of the test's own."""
    recorded = Host.load(HOSTS / "milan-qemu-10.0.json")
    return replace(recorded, folders=replace(recorded.folders, runtime=str(tmp_path / "r"), state=str(tmp_path / "s")))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A firmware image that is there."""
    file = tmp_path / "firmware.fd"
    file.write_bytes(bytes(4096))
    return file


def with_crystal(monkeypatch: pytest.MonkeyPatch, node: Path) -> None:
    """Every guest that is planned from now on has the made-up device."""

    def resolve_crystal(context: Context) -> Iterator[CrystalPlan]:
        yield CrystalPlan(node=str(node))

    monkeypatch.setattr(resolving, "_DEVICES", (*resolving._DEVICES, resolve_crystal))


def profile(image: Path, text: str = "") -> LoadedProfile:
    """A plain guest's profile."""
    return loads(f"name: g\naccel: tcg\nfirmware: {{image: {image}}}\n{text}", file="g.yaml")


def settings(plan: Plan, key: str, *, user_manager: bool = False) -> list[str]:
    """The values of a setting in the plan's unit."""
    unit = systemd_unit(plan, replace(SERVICE, user_manager=user_manager))
    return re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)


def test_a_made_up_device_shows_everywhere(
    monkeypatch: pytest.MonkeyPatch, host: Host, image: Path, tmp_path: Path
) -> None:
    node = tmp_path / "crystal"
    with_crystal(monkeypatch, node)
    plan = resolve(profile(image), host)
    assert "vhost-crystal-pci,disable-legacy=on,iommu_platform=on" in argv(plan)
    assert settings(plan, "DeviceAllow") == [f"{node} r"]
    with pytest.raises(HostError, match=f"device {node}: missing"):
        check_files(plan)
    failed = examine_for(profile(image), host)
    [finding] = [one for top in failed.findings for one in top.walk() if one.title == str(node)]
    assert (finding.result, finding.why, finding.remedy) == (
        Result.FAILED,
        "The guest sees the future.",
        "buy a crystal",
    )
    assert not failed.is_fit
    node.write_bytes(b"")
    check_files(plan)
    fine = examine_for(profile(image), host)
    [finding] = [one for top in fine.findings for one in top.walk() if one.title == str(node)]
    assert finding.result is Result.OK
    assert fine.is_fit


def test_the_doctor_judges_a_saved_host_by_what_was_saved(host: Host, image: Path) -> None:
    loaded = profile(image, "vsock: auto\ndisks: [{path: /on/that/machine}]\n")

    def found(host: Host) -> dict[str, Result]:
        report = examine_for(loaded, host, here=False)
        return {
            one.title: one.result for top in report.findings for one in top.walk() if one.name.startswith("profile.")
        }

    assert found(host)["/dev/vhost-vsock"] is Result.UNKNOWN
    assert found(host)["files"] is Result.UNKNOWN
    missing = Device(path="/dev/vhost-vsock", error="No such file or directory")
    assert found(replace(host, platform=PlatformFacts(devices=[missing])))["/dev/vhost-vsock"] is Result.FAILED
    there = replace(missing, exists=True, openable=True)
    assert found(replace(host, platform=PlatformFacts(devices=[there])))["/dev/vhost-vsock"] is Result.OK


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {"DeviceAllow": [], "RestrictNamespaces": ["yes"], "CapabilityBoundingSet": [""]}),
        ("rng: {source: /dev/hwrng}\n", {"DeviceAllow": ["/dev/hwrng r"]}),
        (
            "networks: [{type: tap, interface: tap0, vhost: true}]\n",
            {"DeviceAllow": ["/dev/net/tun rw", "/dev/vhost-net rw"], "NoNewPrivileges": ["yes"]},
        ),
        (
            "networks: [{type: bridge, bridge: br0}]\n",
            {
                "DeviceAllow": ["/dev/net/tun rw"],
                "NoNewPrivileges": ["yes"],
                "CapabilityBoundingSet": ["CAP_NET_ADMIN"],
            },
        ),
        (
            "networks: [{type: macvtap, interface: m0, vhost: true}]\n",
            {"DeviceAllow": ["/dev/vhost-net rw", "char-macvtap rw"], "CapabilityBoundingSet": [""]},
        ),
        ("networks: [{type: tap, descriptors: [7]}]\n", {"DeviceAllow": [], "CapabilityBoundingSet": [""]}),
        (
            "networks: [{type: passt}]\n",
            {
                "RestrictNamespaces": ["user ipc mnt uts pid"],
                "SystemCallFilter": ["@system-service seccomp mbind set_mempolicy @mount"],
                "CapabilityBoundingSet": [""],
            },
        ),
        (
            "shares: [{path: /srv/x, tag: x}]\n",
            {
                "ReadWritePaths": ["/srv/x"],
                "RuntimeDirectory": ["sevlaunch virtiofsd"],
                "RestrictNamespaces": ["mnt net pid user"],
            },
        ),
        (
            "vsock: auto\n",
            {
                "DeviceAllow": ["/dev/vhost-vsock rw"],
                "RestrictAddressFamilies": ["AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_VSOCK"],
            },
        ),
        ("disks: [{path: /dev/vg/a}, {path: /dev/vg/b, read_only: true}]\n", {
            "DeviceAllow": ["/dev/vg/a rw", "/dev/vg/b r"], "ReadWritePaths": []}),
        ("disks: [{path: /tmp/d.raw}]\n", {"PrivateTmp": ["no"], "ReadWritePaths": ["/tmp/d.raw"]}),
    ],
)  # fmt: skip
def test_the_unit_has_what_the_parts_need(text: str, expected: dict[str, list[str]], host: Host, image: Path) -> None:
    plan = resolve(profile(image, text), host)
    # The image of the firmware is in the system's /tmp, which is then for short-lived files, too.
    own = settings(plan, "PrivateTmp") == ["yes"]
    assert own != ("/tmp" in settings(plan, "ReadWritePaths"))
    assert {key: [value for value in settings(plan, key) if value != "/tmp"] for key in expected} == expected


def test_a_users_systemd_lets_the_bridge_helper_become_root(host: Host, image: Path) -> None:
    bridge = resolve(profile(image, "networks: [{type: bridge, bridge: br0}]\n"), host)
    # Each of these sets no_new_privs where the manager is not root: systemd.exec(5).
    for key in ("NoNewPrivileges", "RestrictAddressFamilies", "RestrictNamespaces", "SystemCallFilter"):
        assert settings(bridge, key, user_manager=True) == []
        assert settings(resolve(profile(image), host), key, user_manager=True) != []


def test_helper_programs_are_shown_with_the_reason_for_each_argument(host: Host, image: Path, tmp_path: Path) -> None:
    text = "networks: [{type: passt, forward: ['tcp:8080:80']}]\nshares: [{path: /srv/a b, tag: x}]\n"
    plan = resolve(profile(image, text), host)
    passt, virtiofsd = plan.companions
    assert [companion.program for companion in plan.companions] == ["passt", "virtiofsd"]
    document = json.loads(as_json(plan))
    assert document == {
        "argv": argv(plan),
        "helpers": [
            {"name": "passt0", "argv": list(passt.argv), "socket": f"{tmp_path}/r/g/qemu/passt0.sock"},
            {"name": "share0", "argv": list(virtiofsd.argv), "socket": f"{tmp_path}/r/g/qemu/share0.sock"},
        ],
    }
    words = [word for line in lines(plan).splitlines() for word in shlex.split(line, comments=True)]
    assert words == [*passt.argv, *virtiofsd.argv, *argv(plan)]
    shown = explain(plan)
    assert "--tcp-ports 127.0.0.1/8080:80\n    127.0.0.1/8080:80  profile: g.yaml:4:" in shown
    assert "    source=/srv/a b  profile: g.yaml:5:" in shown
    # Without any, the document is the list that it always was.
    assert json.loads(as_json(resolve(profile(image), host))) == argv(resolve(profile(image), host))


@pytest.mark.parametrize(
    "text", ["", "networks: [{type: tap, interface: t}]\n", "networks: [{type: bridge, bridge: b}]\n"]
)
def test_no_qemu_starts_programs_or_becomes_root(text: str, host: Host, image: Path) -> None:
    [option] = [one for one in choices(resolve(profile(image, text), host)) if one["option"] == "-sandbox"]
    sandbox = {parameter["key"]: parameter["value"] for parameter in option["parameters"]}
    assert sandbox["spawn"] == sandbox["elevateprivileges"] == "deny"


def test_needs_add_up_each_once(host: Host) -> None:
    read = NeededDevice("/dev/a", "To look.", "make it", write=False)
    helper = Companion("h", "help", (flag("-x", rule("x")),), "/s", "install help")
    both = merged(
        (
            Needs(devices=(read,), companions=(helper,), capabilities=("CAP_A", "CAP_B"), locked_memory=1),
            Needs(devices=(replace(read, write=True),), companions=(helper,), capabilities=("CAP_B",), locked_memory=2),
        )
    )
    assert both.devices == (replace(read, write=True),)
    assert both.companions == (helper,)
    assert both.capabilities == ("CAP_A", "CAP_B")
    assert (both.locked_memory, both.memory_limit) == (3, None)
    assert merged((Needs(memory_limit=1), Needs(), Needs(memory_limit=2))).memory_limit == 3
    assert merged(()) == Needs()


def test_what_can_not_be_read_or_is_no_folder_is_said(host: Host, image: Path, tmp_path: Path) -> None:
    plan = resolve(profile(image, f"shares: [{{path: {image}, tag: a}}, {{path: {tmp_path}/no, tag: b}}]\n"), host)
    with pytest.raises(HostError) as caught:
        check_files(plan)
    assert f"shared folder {image}: is no folder" in str(caught.value)
    assert f"shared folder {tmp_path}/no: no such folder (mkdir {tmp_path}/no, or correct shares)" in str(caught.value)


def test_the_library_does_not_know_where_its_repository_builds_the_demo() -> None:
    package = Path(resolving.__file__).parents[1]
    files = list(package.rglob("*.py"))
    assert files
    assert [file for file in files if re.search("build/demo|demo-guest", file.read_text())] == []


@pytest.mark.parametrize("path", ["/srv/x,source=/etc", "/srv/x\\,y", "/srv/plain"])
def test_a_shared_path_is_one_path_for_each_virtiofsd(path: str, host: Host, image: Path) -> None:
    loaded = profile(image, f"shares: [{{path: '{path}', tag: x}}]\n")
    assert loaded.profile.helpers == ("virtiofsd",)

    def arguments(*options: str) -> tuple[str, ...]:
        known = {"virtiofsd": HelperFacts(path="/usr/libexec/virtiofsd", options=list(options))}
        [virtiofsd] = resolve(loaded, replace(host, helpers=known)).companions
        return virtiofsd.argv[2:]

    assert arguments("--shared-dir", "--socket-path") == ("--shared-dir", path)
    escaped = {"/srv/x,source=/etc": r"/srv/x\,source=/etc", "/srv/x\\,y": r"/srv/x\\\,y"}
    assert arguments("--socket-path") == ("-o", f"source={escaped.get(path, path)}")
    if path in escaped:
        with pytest.raises(ProfileError, match=r"shares\.0\.path: how virtiofsd takes a comma or backslash"):
            resolve(loaded, host)
    else:
        assert resolve(loaded, host).companions[0].argv[2:] == ("-o", f"source={path}")


def test_the_script_of_a_guest_with_helpers_starts_them_first(host: Host, image: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("passt", "virtiofsd"):
        (programs / name).write_text(HELPER.format(log=str(tmp_path / "started")))
        (programs / name).chmod(0o755)
    recorder = tmp_path / "qemu"
    recorder.write_text(f"#!/bin/sh\necho qemu >> {tmp_path}/started\n")
    recorder.chmod(0o755)
    assert host.qemu
    here = replace(host, qemu=replace(host.qemu, binary=str(recorder)))
    plan = resolve(profile(image, "networks: [{type: passt}]\nshares: [{path: /srv/a b, tag: x}]\n"), here)
    environment = {"PATH": f"{programs}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euc", shell(plan)], env=environment, check=True, timeout=60)
    started = (tmp_path / "started").read_text().splitlines()
    assert [Path(line.split()[0]).name for line in started] == ["passt", "virtiofsd", "qemu"]
    assert "source=/srv/a b" in started[1]
