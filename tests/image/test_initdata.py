"""The document of a profile, the same wherever it is made; the disk, as kata's agent reads it."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch.errors import HostError, UsageError
from sevlaunch.flows.completion import complete_plan
from sevlaunch.guest.first_boot import make_seed
from sevlaunch.host.model import Host
from sevlaunch.image.initdata import initdata_disk, initdata_document
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.initdata_values import parse_initdata
from sevlaunch.profile.loader import load
from tests.conftest import HOSTS
from tests.image.test_seed import KEY, read_back

PROFILE = f"""\
name: web
security: {{type: sev-snp}}
first_boot:
  ssh_keys: ['{KEY}']
  files: [{{path: /etc/motd, source: motd}}]
  network_config: {{version: 2}}
initdata:
  bind: [first_boot, network_config]
  data: {{aa.toml: "one = 1\\n"}}
  files: {{app.conf: app.conf}}
"""


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """A profile with a seed that is bound, and a file."""
    return written(tmp_path / "one")


def written(folder: Path) -> Path:
    """The profile in another folder."""
    folder.mkdir()
    (folder / "motd").write_text("hello\n")
    (folder / "app.conf").write_text("port = 80\n")
    (folder / "web.yaml").write_text(PROFILE)
    return folder / "web.yaml"


def test_the_seed_that_a_guest_gets_is_the_bound_one(profile: Path) -> None:
    host = Host.load(HOSTS / "milan-qemu-11.1.json")
    loaded = load(profile)
    plan = complete_plan(loaded, resolve(loaded, host), host)
    assert plan.initdata and plan.initdata.document and plan.first_boot
    found = parse_initdata(plan.initdata.document)
    seed = {f"seed/{name}": content for name, content in read_back(make_seed(plan.first_boot), "joliet_path").items()}
    assert set(found.data) == {*seed, "aa.toml", "file/app.conf"}
    assert found.data["aa.toml"] == "one = 1\n"
    seed["file/app.conf"] = b"port = 80\n"
    for name, content in seed.items():
        assert found.data[name] == hashlib.sha256(content).hexdigest()
    (snp,) = (argument for argument in argv(plan) if argument.startswith("sev-snp-guest"))
    assert "host-data=" in snp


def test_the_seed_is_the_bound_one_where_the_document_is_a_file(profile: Path) -> None:
    """The owner makes the document, and the host starts the guest with it."""
    host = Host.load(HOSTS / "milan-qemu-11.1.json")
    loaded = load(profile)
    (profile.parent / "web.toml").write_bytes(initdata_document(loaded.profile))
    given = load(profile, overrides=[f"initdata={profile.parent / 'web.toml'}"])
    seeds = []
    for each in (loaded, given):
        plan = complete_plan(each, resolve(each, host), host)
        assert plan.first_boot and plan.initdata
        seeds.append((plan.initdata.document, make_seed(plan.first_boot)))
    assert seeds[0] == seeds[1]


def test_the_document_is_the_same_wherever_the_profile_lies(profile: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "two")
    assert initdata_document(load(profile).profile) == initdata_document(load(other).profile)


@pytest.mark.parametrize("file", ["motd", "app.conf"])
def test_a_file_that_changes_or_is_missing_is_noticed(file: str, profile: Path) -> None:
    before = parse_initdata(initdata_document(load(profile).profile))
    (profile.parent / file).write_text("another\n")
    after = parse_initdata(initdata_document(load(profile).profile))
    changed = {name for name in before.data if before.data[name] != after.data[name]}
    # Who takes another file is another instance.
    assert changed == ({"seed/user-data", "seed/meta-data"} if file == "motd" else {"file/app.conf"})
    assert before.host_data != after.host_data
    (profile.parent / file).unlink()
    with pytest.raises((HostError, UsageError), match=file):
        initdata_document(load(profile).profile)


@pytest.mark.parametrize("document", [b"", b'version = "0.1.0"\n' * 100])
def test_the_disk_has_katas_layout(document: bytes) -> None:
    disk = initdata_disk(document)
    magic, length = struct.unpack_from("<8sQ", disk)
    assert (magic, len(disk) % 512) == (b"initdata", 0)
    assert gzip.decompress(disk[16 : 16 + length]) == document
    assert disk[16 + length :] == bytes(len(disk) - 16 - length)
    # No time, no name, no system: RFC 1952.
    assert disk[16:26] == b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    assert disk == initdata_disk(document)


def test_a_plan_that_is_not_complete_has_no_command_line(profile: Path) -> None:
    plan = resolve(load(profile), Host.load(HOSTS / "milan-qemu-11.1.json"))
    with pytest.raises(UsageError, match="is not made yet") as caught:
        argv(plan)
    assert "complete_plan" in caught.value.hint


def test_init_data_that_is_too_large_is_refused(profile: Path) -> None:
    """A profile's file has less, but it may build on others."""
    found = load(profile).profile
    assert found.initdata
    with pytest.raises(UsageError, match="init-data has at most 1 MiB"):
        initdata_document(replace(found, initdata=replace(found.initdata, data={"a": "x" * (1 << 20)})))
