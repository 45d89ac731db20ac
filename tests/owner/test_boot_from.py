"""The digest and the lock of a guest whose kernel is taken from its disk: what the owner, the plan and QEMU have."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from sevlaunch.errors import UsageError
from sevlaunch.host.model import Host
from sevlaunch.owner.lock import lock_plan
from sevlaunch.owner.profile_boot import boot_of_profile
from sevlaunch.owner.setup import Options, resolve_setup
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import LoadedProfile, loads
from tests.conftest import HOSTS
from tests.contents.disks import ESP, ROOT, disk, ext, fat, kernel, uki
from tests.guest.support import ordinary_user
from tests.owner.images import ovmf

BOOT: dict[str, bytes | str] = {
    "vmlinuz": kernel("one"),
    "initrd.img": b"initrd",
    "etc/kernel/cmdline": b"root=LABEL=rootfs",
}
UKI = uki([(".cmdline", b"root=LABEL=rootfs"), (".linux", kernel("in it"))])


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def loaded(tmp_path: Path, boot: str) -> LoadedProfile:
    """An SNP guest that is measured, with one disk."""
    (tmp_path / "ovmf.fd").write_bytes(ovmf())
    text = (
        f"name: g\nsecurity: {{type: sev-snp, kernel_hashes: true}}\nfirmware: {{image: ovmf.fd}}\nboot: {boot}\n"
        "disks: [{image: disk.raw}]\n"
    )
    return loads(text, file="g.yaml", base=tmp_path)


def hashes(one: LoadedProfile, options: Options = Options()) -> dict[str, str | None]:  # noqa: B008 - it is frozen
    """The SHA-256 of what the owner's digest is made of, by name."""
    return {found.name: found.sha256 for found in resolve_setup(one, options).inputs if found.sha256}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_the_owner_measures_what_qemu_is_handed(tmp_path: Path) -> None:
    disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", BOOT))])
    one = loaded(tmp_path, "{from: disk0, cmdline_extra: quiet}")
    found = hashes(one)
    assert found["kernel"] == sha256(kernel("one")) and found["initrd"] == sha256(b"initrd")
    assert found["cmdline"] == sha256(b"root=LABEL=rootfs quiet\0")
    host = Host.load(HOSTS / "milan-qemu-10.0.json").with_boot(None, one.profile.boot_image)
    plan = resolve(one, host)
    words = argv(plan)
    given = {word: words[words.index(word) + 1] for word in ("-kernel", "-initrd", "-append")}
    assert sha256(Path(given["-kernel"]).read_bytes()) == found["kernel"]
    assert sha256(Path(given["-initrd"]).read_bytes()) == found["initrd"]
    assert sha256(given["-append"].encode() + b"\0") == found["cmdline"]
    lock = json.loads(lock_plan(one, plan).to_json())
    assert {name: lock[name]["sha256"] for name in ("kernel", "initrd", "cmdline")} == {
        name: found[name] for name in ("kernel", "initrd", "cmdline")
    }
    assert lock["digests"] == {"launch": resolve_setup(one, Options()).digests()[""].hex()}


def test_the_same_files_named_by_themselves_give_the_same_digest(tmp_path: Path) -> None:
    disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", BOOT))])
    (tmp_path / "k").write_bytes(kernel("one"))
    (tmp_path / "i").write_bytes(b"initrd")
    taken = resolve_setup(loaded(tmp_path, "{from: disk0}"), Options()).digests()
    named = resolve_setup(loaded(tmp_path, "{kernel: k, initrd: i, cmdline: root=LABEL=rootfs}"), Options()).digests()
    other = resolve_setup(loaded(tmp_path, "{kernel: k, initrd: i, cmdline: root=LABEL=rootfs2}"), Options()).digests()
    assert taken == named != other


def test_a_unified_image_is_measured_as_it_is(tmp_path: Path) -> None:
    disk(tmp_path / "disk", [(ESP, fat(tmp_path / "esp", {"EFI/Linux/a.efi": UKI}))])
    found = hashes(loaded(tmp_path, "{from: disk0}"))
    assert (found["kernel"], found.get("initrd"), found["cmdline"]) == (sha256(UKI), None, sha256(b"\0"))
    says = [
        one.value for one in resolve_setup(loaded(tmp_path, "{from: disk0}"), Options()).inputs if "says" in one.name
    ]
    assert says == ["unified kernel image: of an unnamed system; no initrd; command line 'root=LABEL=rootfs'"]
    assert hashes(loaded(tmp_path, "{from: disk0, cmdline_extra: a}"))["cmdline"] == sha256(b"root=LABEL=rootfs a\0")


def test_one_byte_of_the_image_is_another_digest(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", BOOT))])
    one = loaded(tmp_path, "{from: disk0}")
    before = resolve_setup(one, Options()).digests()
    content = bytearray(image.read_bytes())
    content[content.index(b"HdrSone") + 5] ^= 1
    image.write_bytes(content)
    assert resolve_setup(one, Options()).digests() != before


def test_an_owner_who_says_all_of_it_needs_no_image(tmp_path: Path) -> None:
    one = loaded(tmp_path, "{from: disk0}")
    (tmp_path / "k").write_bytes(kernel("one"))
    options = Options(kernel=tmp_path / "k", initrd_hash=bytes(32), cmdline=b"x")
    assert hashes(one, options)["kernel"] == sha256(kernel("one"))
    with pytest.raises(UsageError, match=r"boot\.from: can't read .*disk\.raw"):
        resolve_setup(one, Options(kernel=tmp_path / "k"))


def test_what_the_plan_refuses_the_owner_is_told_too(tmp_path: Path) -> None:
    disk(tmp_path / "disk", [(ROOT, ext(tmp_path / "root", {"vmlinuz": kernel("one")}))])
    with pytest.raises(UsageError, match=r"boot\.from: .* has no command line beside it"):
        boot_of_profile(loaded(tmp_path, "{from: disk0}").profile)


def test_it_takes_no_rights_of_root(base: Path) -> None:
    parts = [(ESP, fat(base / "esp", {"EFI/BOOT/BOOTX64.EFI": b"x"})), (ROOT, ext(base / "root", BOOT))]
    disk(base / "disk.qcow2", parts, qcow2=True)
    (base / "ovmf.fd").write_bytes(ovmf())
    (base / "g.yaml").write_text(
        "security: {type: sev-snp, kernel_hashes: true}\nfirmware: {image: ovmf.fd}\nboot: {from: disk0}\n"
        "disks: [{image: disk.qcow2}]\n"
    )
    user = ordinary_user(base)
    user.environment["XDG_CACHE_HOME"] = str(base / "cache")
    inputs = user("owner", "digest", base / "g.yaml", "--format", "json").json["inputs"]
    found = {one["name"]: one["sha256"] for one in inputs}
    assert (found["kernel"], found["initrd"]) == (sha256(kernel("one")), sha256(b"initrd"))
