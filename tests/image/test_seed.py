"""The seed of a first boot: what is in it, and that the same input gives the same bytes."""

from __future__ import annotations

import os
import subprocess
import sys
from email import message_from_string
from io import BytesIO
from pathlib import Path
from typing import Any

import pycdlib
import pytest
import yaml
from msgspec.structs import replace

from sevlaunch.image.cloud_config import SeedFile, Wishes
from sevlaunch.image.iso9660 import iso9660
from sevlaunch.image.seed import LABEL, Seed
from sevlaunch.profile.seed_values import read_user_data
from tests import needs
from tests.conftest import ROOT

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG5vIHJlYWwga2V5LCB3aGljaCBub2JvZHkgaGFzIGl0 me@home"
WISHES = Wishes(
    user="admin",
    password_hash="$6$salt$hashhashhash",
    files=(SeedFile("/etc/motd", b"hello\n", "0644", "root:root"), SeedFile("/key", b"\x00\xff", "0600", "admin")),
    run=("echo 'one: two'", "touch /ran"),
    packages=("htop",),
)
SEED = Seed(guest="web/0123abcd", hostname="web", wishes=WISHES, keys=(KEY,), network_config="version: 2\n")
# Another process at another time in another place of the world.
ELSEWHERE = """
import sys
from sevlaunch.image.iso9660 import iso9660
files = {"meta-data": b"a: b", "user-data": b"#cloud-config", "network-config": b"c"}
sys.stdout.buffer.write(iso9660("cidata", files))
"""


def read_back(image: bytes, kind: str) -> dict[str, bytes]:
    """The files in an image, by their names in one of the extensions."""
    iso = pycdlib.PyCdlib()
    iso.open_fp(BytesIO(image))
    found = {}
    for child in iso.list_children(**{kind: "/"}):
        if not (child.is_dot() or child.is_dotdot()):
            name = iso.full_path_from_dirrecord(child, rockridge=kind == "rr_path")
            content = BytesIO()
            iso.get_file_from_iso_fp(content, **{kind: name})
            found[name.lstrip("/")] = content.getvalue()
    iso.close()
    return found


def config_of(seed: Seed, found: tuple[str, ...] = ()) -> Any:
    """The #cloud-config of a seed without user data of its own."""
    text = seed.documents(found)["user-data"].decode()
    assert text.startswith("#cloud-config\n")
    return yaml.safe_load(text)


def parts(message: str) -> list[Any]:
    """The documents in a message of several."""
    return [part for part in message_from_string(message).walk() if not part.is_multipart()]


@pytest.mark.parametrize("kind", ["rr_path", "joliet_path"])
def test_each_reader_finds_the_files_by_their_names(kind: str) -> None:
    assert read_back(SEED.image(), kind) == SEED.documents()
    assert set(SEED.documents()) == {"meta-data", "user-data", "network-config"}


def test_the_label_is_the_one_that_cloud_init_looks_for(tmp_path: Path) -> None:
    blkid = needs.program("blkid", "util-linux")
    file = tmp_path / "seed.iso"
    file.write_bytes(SEED.image())
    told = subprocess.run([blkid, "-p", "-o", "export", file], capture_output=True, text=True, check=True).stdout
    assert {f"LABEL={LABEL}", "TYPE=iso9660"} <= set(told.split())


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_neither_the_hour_nor_the_place_changes_a_byte(zone: str) -> None:
    files = {"network-config": b"c", "user-data": b"#cloud-config", "meta-data": b"a: b"}
    there = subprocess.run(
        [sys.executable, "-c", ELSEWHERE],
        env={**os.environ, "TZ": zone, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
    ).stdout
    assert there == iso9660("cidata", files)


def test_no_date_is_left_in_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says, the bytes are those."""
    images = []
    for now in (1.0, 2_000_000_000.0):
        monkeypatch.setattr("time.time", lambda now=now: now)
        images.append(SEED.image())
    assert images[0] == images[1]


def test_one_other_byte_of_the_input_is_another_seed() -> None:
    other = replace(WISHES, files=(SeedFile("/etc/motd", b"hellp\n", "0644", "root:root"), WISHES.files[1]))
    assert replace(SEED, wishes=other).image() != SEED.image()
    assert SEED.image([KEY.replace("me@home", "me@work")]) != SEED.image([KEY])


def test_the_instance_is_the_same_as_long_as_guest_and_wishes_are() -> None:
    again = replace(SEED)
    assert again.instance_id == SEED.instance_id
    others = [
        replace(SEED, guest="web/0123abce"),
        replace(SEED, hostname="webs"),
        replace(SEED, keys=()),
        replace(SEED, network_config=None),
        replace(SEED, meta_data={"role": "x"}),
        replace(SEED, wishes=replace(WISHES, run=("echo",))),
        replace(SEED, wishes=replace(WISHES, user_data="#!/bin/sh\n")),
    ]
    assert len({SEED.instance_id, *(other.instance_id for other in others)}) == 1 + len(others)


def test_keys_that_were_found_are_no_new_instance() -> None:
    before, after = (yaml.safe_load(SEED.documents(found)["meta-data"]) for found in ((), (KEY,)))
    assert before == after == {"instance-id": SEED.instance_id, "local-hostname": "web"}
    assert config_of(SEED, (f"{KEY}2",))["users"][0]["ssh_authorized_keys"] == [KEY, f"{KEY}2"]


def test_meta_data_of_one_s_own_goes_before() -> None:
    own = {"instance-id": "mine", "role": "db"}
    assert yaml.safe_load(replace(SEED, meta_data=own).documents()["meta-data"]) == {"local-hostname": "web", **own}


def test_the_cloud_config_says_what_the_profile_does() -> None:
    assert config_of(SEED) == {
        "users": [
            {
                "name": "admin",
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": False,
                "hashed_passwd": "$6$salt$hashhashhash",
                "ssh_authorized_keys": [KEY],
            }
        ],
        "manage_etc_hosts": "localhost",
        "write_files": [
            {"path": "/etc/motd", "permissions": "0644", "owner": "root:root", "content": "hello\n"},
            {
                "path": "/key",
                "permissions": "0600",
                "owner": "admin",
                "defer": True,
                "encoding": "b64",
                "content": "AP8=",
            },
        ],
        "package_update": True,
        "packages": ["htop"],
        "runcmd": ["echo 'one: two'", "touch /ran"],
    }


def test_root_may_be_the_user_and_the_image_s_own_user_too() -> None:
    root = config_of(replace(SEED, wishes=Wishes("root")))
    assert root["disable_root"] is False
    assert root["users"] == [{"name": "root", "lock_passwd": True, "ssh_authorized_keys": [KEY]}]
    own = config_of(replace(SEED, wishes=Wishes(None)))
    assert own == {"ssh_authorized_keys": [KEY], "manage_etc_hosts": "localhost"}


def test_user_data_of_another_kind_goes_beside_what_the_profile_says() -> None:
    script = "#!/bin/sh\necho 'ä'\n"
    seed = replace(SEED, wishes=replace(WISHES, user_data=script))
    theirs, ours = parts(seed.documents()["user-data"].decode())
    assert theirs.get_payload(decode=True).decode() == script
    assert yaml.safe_load(ours.get_payload(decode=True)) == config_of(SEED)


def test_a_message_of_several_documents_stays_one() -> None:
    inner = replace(SEED, wishes=replace(WISHES, user_data="#!/bin/sh\n")).documents()["user-data"].decode()
    outer = replace(SEED, wishes=replace(WISHES, user_data=inner)).documents()["user-data"].decode()
    assert [part.get_filename() for part in parts(outer)] == ["user-data", "sevlaunch", "sevlaunch"]


def test_user_data_that_cloud_init_does_not_know_is_left_as_it_is() -> None:
    toml = '[settings]\nkey = "value"\n'
    assert replace(SEED, wishes=Wishes("admin", user_data=toml)).documents()["user-data"].decode() == toml


def test_a_mapping_becomes_a_cloud_config_that_yaml_1_1_reads_the_same() -> None:
    config = {"a": "yes", "b": "0644", "c": ["1:30", "~", "null"], "d": True, "e": 7, "f": "x\ty\n"}
    text = read_user_data(config)
    assert text.startswith("#cloud-config\n")
    assert yaml.safe_load(text) == config
