"""What a stranger's profile would do outside the guest's folder is listed by a command that does none of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sevlaunch.profile.loader import LoadedProfile, loads
from sevlaunch.profile.model import Model, Profile
from sevlaunch.profile.option_reach import CHARACTER_DEVICES, HARMLESS, PROPERTIES, SIMPLE
from sevlaunch.profile.qemu_options import OPTIONS
from sevlaunch.profile.reach import PATHS, reach
from sevlaunch.profile.validation import FieldType, field_types
from tests.conftest import PROFILES, Command


def reached(text: str, base: Path = Path("/base")) -> list[tuple[str, str, str]]:
    """The path in the profile, what is done, and to what."""
    return [(one.path, one.does, one.what) for one in reach(loads(text, base=base))]


def of_args(*args: str, security: str = "none") -> list[tuple[str, str]]:
    """What these arguments do, and to what."""
    text = json.dumps({"security": security, "accel": "auto", "qemu": {"extra_args": args}})
    return [(does, what) for _, does, what in reached(text)]


def path_fields(kind: type[Model], prefix: str = "") -> set[str]:
    """Every key, at any depth, that names a file."""
    found = set()
    for key, field in field_types(kind).items():
        for one in (field, field.element):
            if one is None:
                continue
            stand_in = one.stand_in is not None and one.stand_in.value == "/"
            assert stand_in == (one.parser is not None and one.parser.names_file)
            if stand_in:
                found.add(f"{prefix}{key}")
            for struct in one.structs:
                found |= path_fields(struct, f"{prefix}{key}.")
    return found


def test_every_key_that_names_a_file_is_known() -> None:
    assert path_fields(Profile) == PATHS.keys()


def test_every_type_of_network_is_known() -> None:
    field: FieldType | None = field_types(Profile)["networks"].element
    assert field
    known = {"user": {}, "tap": {"interface": "t"}, "bridge": {"bridge": "b"}, "passt": {}}
    known["macvtap"] = {"interface": "m"}
    assert {word for struct in field.structs for word in field_types(struct)["type"].words} == known.keys()
    for kind, more in known.items():
        assert reached(json.dumps({"networks": [{"type": kind, **more}]})), kind


def test_every_option_of_qemu_is_known() -> None:
    sorted_out = [*SIMPLE, *CHARACTER_DEVICES, *PROPERTIES, *HARMLESS]
    assert len(sorted_out) == len(set(sorted_out))
    assert set(sorted_out) == {name for name, option in OPTIONS.items() if not option.refused}


def test_a_profile_that_names_nothing_reaches_nothing() -> None:
    for text in ("memory: 1G\n", "security: sev\nmemory: 1G\ncpus: 4\nvideo: std\nconsole: virtio\n"):
        assert reached(text) == []


def test_all_that_a_profile_can_name_is_listed(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("cpus: 2\n")
    (tmp_path / "data").write_bytes(bytes(32))
    (tmp_path / "config.ign").write_text('{"ignition": {}}')
    (tmp_path / "user.yaml").write_text("#cloud-config\n{}\n")
    text = """\
extends: base.yaml
security:
  {type: sev-snp, host_data: data, guest_visible_workarounds: 00112233445566778899aabbccddeeff, sev_device: /dev/x}
firmware: {image: image.fd}
boot: {kernel: vmlinuz, initrd: initrd.img}
disks:
  - {path: a.raw}
  - {path: b.raw, read_only: true}
  - {path: c.iso, cdrom: true, bus: virtio-scsi}
  - {image: debian-13}
  - {image: "https://x/d.img", sha256: a000000000000000000000000000000000000000000000000000000000000001}
networks:
  - {type: user, forward: ["tcp:2222:22", "udp:0.0.0.0:53:53", "tcp:0:80"]}
  - {type: user, restrict: true, ssh: auto}
  - {type: tap, interface: tap0}
  - {type: bridge, bridge: br0}
  - {type: passt, forward: ["tcp:80:80"]}
  - {type: macvtap, interface: m0}
  - {type: tap, descriptors: [7, 8]}
first_boot:
  user_data: user.yaml
  meta_data: {role: db}
  files: [{path: /etc/motd, content: text}, {path: /etc/key, source: key}]
ignition: config.ign
rng: {source: /dev/hwrng}
vsock: auto
tpm: true
run_as: somebody
qemu: {binary: /opt/qemu, extra_args: [-D, /log]}
"""
    anywhere = "wherever the guest wants to, as this user"
    assert sorted(reached(text, tmp_path)) == sorted(
        [
            ("extends", "reads", f"{tmp_path}/base.yaml"),
            ("security.host_data", "reads", "data"),
            ("security.sev_device", "opens", "/dev/x"),
            ("firmware.image", "reads", f"{tmp_path}/image.fd"),
            ("boot.kernel", "reads", f"{tmp_path}/vmlinuz"),
            ("boot.initrd", "reads", f"{tmp_path}/initrd.img"),
            ("disks.0.path", "writes", f"{tmp_path}/a.raw"),
            ("disks.1.path", "reads", f"{tmp_path}/b.raw"),
            ("disks.2.path", "reads", f"{tmp_path}/c.iso"),
            ("disks.3.image", "connects", "where the catalogue has debian-13"),
            ("disks.4.image", "connects", "https://x/d.img"),
            ("first_boot.user_data", "reads", "user.yaml"),
            ("first_boot.files.1.source", "reads", f"{tmp_path}/key"),
            ("first_boot.ssh_keys", "connects", "this user's SSH agent, for its public keys"),
            ("first_boot.ssh_keys", "reads", "~/.ssh/*.pub"),
            ("ignition", "reads", f"{tmp_path}/config.ign"),
            ("networks.0", "connects", anywhere),
            ("networks.0.forward.0", "listens", "tcp port 2222 of 127.0.0.1"),
            ("networks.0.forward.1", "listens", "udp port 53 of 0.0.0.0"),
            ("networks.0.forward.2", "listens", "a free tcp port of 127.0.0.1"),
            ("networks.1.ssh", "listens", "a free tcp port of 127.0.0.1"),
            ("networks.2", "opens", "the network interface tap0"),
            ("networks.3", "runs", "qemu-bridge-helper"),
            ("networks.3", "opens", "the network bridge br0"),
            ("networks.4", "runs", "passt"),
            ("networks.4", "connects", anywhere),
            ("networks.4.forward.0", "listens", "tcp port 80 of 127.0.0.1"),
            ("networks.5", "opens", "the network interface m0"),
            ("networks.6", "opens", "the network behind the descriptors 7, 8"),
            ("rng.source", "reads", "/dev/hwrng"),
            ("vsock", "connects", "this host, through vsock"),
            ("tpm", "runs", "swtpm"),
            ("run_as", "becomes", "the user somebody"),
            ("qemu.binary", "runs", "/opt/qemu"),
            ("qemu.extra_args.1", "writes", "/log"),
        ]
    )
    assert reached("firmware: {code: /c, vars: /v, nvram: /n}\nshares: [{path: /s, tag: t}]\n") == [
        ("firmware.code", "reads", "/c"),
        ("firmware.vars", "reads", "/v"),
        ("firmware.nvram", "writes", "/n"),
        ("shares.0.path", "writes", "/s"),
        ("shares.0", "runs", "virtiofsd"),
    ]


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["-plugin", "/a.so,x=y"], [("runs", "/a.so")]),
        (["-plugin", "file=/a.so"], [("runs", "/a.so")]),
        (["-trace", "enable=x,file=/a"], [("writes", "/a")]),
        (["-trace", "x"], []),
        (["-D", "/a", "-d", "cpu"], [("writes", "/a")]),
        (["-s"], [("listens", "tcp::1234, for a debugger")]),
        (["-gdb", "tcp::5,server"], [("listens", "tcp::5,server")]),
        (["-serial", "unix:/a,server=on,wait=off"], [("listens", "unix:/a,server=on,wait=off")]),
        (["-serial", "tcp:host:5"], [("connects", "tcp:host:5")]),
        (["-serial", "file:/a"], [("writes", "/a")]),
        (["-serial", "/dev/ttyS0"], [("opens", "/dev/ttyS0")]),
        (["-serial", "null", "-parallel", "none"], []),
        (["-chardev", "socket,id=c,path=/a,server=on"], [("listens", "/a")]),
        (["-chardev", "socket,id=c,host=h,port=5"], [("connects", "h:5")]),
        (["-chardev", "file,id=c,path=/a,logfile=/b"], [("writes", "/b"), ("writes", "/a")]),
        (["-chardev", "null,id=c"], []),
        (["-drive", "if=none,id=a,file=/a"], [("writes", "/a")]),
        (["-drive", "if=none,id=a,file=/a,readonly=on"], [("reads", "/a")]),
        (["-blockdev", "driver=file,node-name=a,filename=/a"], [("writes", "/a")]),
        (["-blockdev", '{"driver":"file","node-name":"a","filename":"/a","read-only":true}'], [("reads", "/a")]),
        (["-blockdev", "nbd,node-name=a,server.type=inet"], [("connects", "nbd,node-name=a,server.type=inet")]),
        (["/a.raw"], [("writes", "/a.raw")]),
        (["-hda", "/a.raw"], [("writes", "/a.raw")]),
        (["-netdev", "user,id=n"], [("connects", "wherever the guest wants to, as this user")]),
        (["-netdev", "user,id=n,restrict=on,hostfwd=tcp::5-:5"], [("listens", "tcp::5-:5")]),
        (["-netdev", "user,id=n,restrict=on,tftp=/a"], [("reads", "/a")]),
        (["-netdev", "socket,id=n,listen=:5"], [("listens", "listen=:5")]),
        (["-netdev", "tap,id=n,ifname=t,script=no,downscript=no"], [("opens", "t")]),
        (["-nic", "none"], []),
        (["-vnc", ":1"], [("listens", ":1")]),
        (["-vnc", "none"], []),
        (["-display", "none"], []),
        (["-fw_cfg", "name=opt/a,file=/a"], [("reads", "/a")]),
        (["-fw_cfg", "name=opt/a,string=b"], []),
        (["-smbios", "type=11,path=/a"], [("reads", "/a")]),
        (["-object", "rng-random,id=r,filename=/a"], [("reads", "/a")]),
        (["-object", "memory-backend-file,id=m,size=1M,mem-path=/a"], [("writes", "/a")]),
        (["-object", "input-linux,id=i,evdev=/dev/input/event0"], [("opens", "/dev/input/event0")]),
        (["-device", "vfio-pci,host=01:00.0"], [("opens", "01:00.0")]),
        (["-device", "e1000e,romfile=/a"], [("reads", "/a")]),
        (["-device", "e1000e,romfile="], []),
        (["-virtfs", "local,path=/a,mount_tag=t,security_model=none"], [("writes", "/a")]),
        (["-perfmap"], [("writes", "/tmp/perf-PID.map")]),
        (["-rtc", "base=utc", "-usb", "-nodefaults"], []),
    ],
    ids=lambda value: " ".join(map(str, value))[:60],
)
def test_what_qemus_options_do_is_listed(args: list[str], expected: list[tuple[str, str]]) -> None:
    assert of_args(*args) == expected


def test_each_stands_where_the_profile_says_it() -> None:
    loaded: LoadedProfile = loads("memory: 1G\nqemu:\n  extra_args: [-usb, -D, /log]\n", file="p.yaml")
    assert [str(one) for one in reach(loaded)] == ["p.yaml:3:26: qemu.extra_args.2: writes /log"]


def test_check_lists_it_and_does_none_of_it(sevlaunch: Command, base: Path) -> None:
    program = base / "program"
    program.write_text(f"#!/bin/sh\ntouch {base}/ran\n")
    program.chmod(0o755)
    profile = base / "strange.yaml"
    args = f"extra_args: [-D, {base}/log]"
    profile.write_text(f"memory: 1G\ndisks: [{{path: /a.raw}}]\nqemu:\n  binary: {program}\n  {args}\n")
    text = sevlaunch("check", profile, "--untrusted").stdout
    assert text.splitlines() == [
        f"{profile}:2:16: disks.0.path: writes /a.raw",
        f"{profile}:4:11: qemu.binary: runs {program}",
        f"{profile}:5:20: qemu.extra_args.1: writes {base}/log",
        f"{profile}: ok",
    ]
    document = sevlaunch("check", profile, "--untrusted", "--format", "json").json[0]
    assert [(one["does"], one["what"]) for one in document["reach"]] == [
        ("writes", "/a.raw"),
        ("runs", str(program)),
        ("writes", f"{base}/log"),
    ]
    assert "reach" not in sevlaunch("check", profile, "--format", "json").json[0]
    assert not (base / "ran").exists()
    assert not (base / "log").exists()
    assert sevlaunch.left_behind() == []


def test_the_profiles_here_can_be_looked_at(sevlaunch: Command) -> None:
    text = sevlaunch("check", *sorted(PROFILES.glob("*.yaml")), "--untrusted").stdout
    assert "sles15-sev.yaml:" in text
    assert "disks.0.path: writes /vmimages/sev-guest-disk.raw" in text


def test_keys_that_stand_in_the_profile_are_read_nowhere(tmp_path: Path) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vIHJlYWwga2V5LCB3aGljaCBub2JvZHkgaGFzIGl0 me@home"
    (tmp_path / "team.pub").write_text(key)
    found = reached(f"first_boot: {{ssh_keys: ['{key}', team.pub]}}", tmp_path)
    assert found == [("first_boot.ssh_keys.1", "reads", "team.pub")]


def test_credentials_are_read_from_files_and_texts_from_nowhere(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    found = reached("credentials: {motd: motd, issue: {text: hello}}", tmp_path)
    assert found == [("credentials.motd", "reads", "motd")]


def test_so_are_those_of_the_initrd(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("hello")
    found = reached("boot: {kernel: k, initrd: i, credentials: {motd: motd, issue: {text: hello}}}", tmp_path)
    assert ("boot.credentials.motd", "reads", "motd") in found
    assert not any("issue" in path for path, _, _ in found)
