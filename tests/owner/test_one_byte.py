"""One byte of anything that profiles/measured.yaml runs is changed: the owner's side says of what."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from sevlaunch.flows.completion import complete_plan
from sevlaunch.guest.first_boot import make_seed
from sevlaunch.host.model import Host
from sevlaunch.image.initdata import initdata_disk
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.initdata_values import parse_initdata
from sevlaunch.profile.loader import load
from tests.conftest import HOSTS, Command
from tests.hash_trees import BLOCK, flip, make_tree
from tests.image.test_seed import read_back
from tests.image.test_seed_check import InGuest
from tests.measured import INITRD, KERNEL, PROFILE, on, small_image
from tests.owner.images import ovmf
from tests.owner.pki import der, processor
from tests.owner.test_report_command import trusting

MILAN = HOSTS / "milan-qemu-11.1.json"


class Launch:
    """The profile on a small image, what is said of it by ``--set``, and the owner's lock of it as it has to be."""

    def __init__(self, base: Path, command: Command) -> None:
        self.base, self.command = base, command
        self.image, self.tree = small_image(base)
        (base / "ovmf.fd").write_bytes(ovmf())
        self.said = {
            "firmware.image": str(base / "ovmf.fd"),
            "initdata": "{bind: [first_boot], data: {aa.toml: one}}",
        }
        command.environment["XDG_CACHE_HOME"] = str(base / "cache")
        self.right = base / "right.lock"
        self.right.write_text(self.lock())

    def options(self) -> list[str]:
        """The profile's overrides."""
        said = [word for key, value in self.said.items() for word in ("--set", f"{key}={value}")]
        return [*on(self.image, self.tree), *said]

    def lock(self) -> str:
        """A lock of the launch as it is now."""
        return self.command("render", PROFILE, "--host", MILAN, *self.options(), "--lock").stdout

    def change(self, content: bytes) -> None:
        """Change the first byte of what is in the image, and make its tree anew."""
        flip(self.image, self.image.read_bytes().index(content))
        self.tree.unlink()
        make_tree(self.image, self.tree)

    def plan(self) -> Plan:
        """The plan of the launch as it is now."""
        host = Host.load(MILAN)
        loaded = load(PROFILE, overrides=self.options()[1::2])
        host = host.with_boot(None, loaded.profile.boot_image).with_verity(loaded.profile.verity)
        return complete_plan(loaded, resolve(loaded, host), host)


@pytest.fixture
def launch(base: Path, sevlaunch: Command) -> Launch:
    """The launch that the owner has seen, and that the host changes."""
    return Launch(base, sevlaunch)


class Case(NamedTuple):
    """What the host changes; the fields that `owner compare` names then, and the checks of a report that say no."""

    change: Callable[[Launch], None]
    fields: set[str]
    checks: set[str]


MEASURED = {"measurement", "id key digest"}
BOUND = {"host_data", "initdata.digest"}
CASES = {
    "root image": Case(lambda one: one.change(b"a motd\n"), {"root_hash"}, MEASURED),
    "kernel": Case(lambda one: one.change(KERNEL[0x206:]), {"kernel.sha256", "root_hash"}, MEASURED),
    "initrd": Case(lambda one: one.change(INITRD), {"initrd.sha256", "root_hash"}, MEASURED),
    "command line in the image": Case(
        lambda one: one.change(b"volatile=state"), {"cmdline.text", "root_hash"}, MEASURED
    ),
    "command line": Case(lambda one: one.said.update({"boot.cmdline_extra": "x"}), {"cmdline.text"}, MEASURED),
    "credential": Case(
        lambda one: one.said.update({"boot.credentials": "{motd: {text: hello from the profilf}}"}),
        {"credentials.motd"},
        MEASURED,
    ),
    "init-data": Case(
        lambda one: one.said.update({"initdata": "{bind: [first_boot], data: {aa.toml: onf}}"}),
        {"initdata.data.aa.toml", *BOUND},
        {"host data"},
    ),
    "seed": Case(
        lambda one: one.said.update({"first_boot.run": "[echo hello from the seee > /run/seed]"}),
        # Who does something else at its first boot is another instance.
        {"initdata.data.seed/user-data", "initdata.data.seed/meta-data", *BOUND},
        {"host data"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_another_launch_in_which_one_name_differs(name: str, launch: Launch) -> None:
    case = CASES[name]
    case.change(launch)
    other = launch.base / "other.lock"
    other.write_text(launch.lock())
    compared = launch.command("owner", "compare", launch.right, other, "--format", "json", check=1).json
    digests = {"digests.launch", "id_block.id_key_digest"} if case.checks == MEASURED else set()
    assert {one["field"] for one in compared["differences"]} == case.fields | digests
    # So does the report of the guest that was launched.
    assert refused(launch, json.loads(other.read_text())) == case.checks
    assert refused(launch, json.loads(launch.right.read_text())) == set()


def refused(launch: Launch, launched: dict[str, object]) -> set[str]:
    """The checks that fail in the report of a launch, for an owner with the right lock."""
    made = processor(version=3)
    certificates, block = launch.base / "certs", launched["id_block"]
    assert isinstance(block, dict)
    certificates.mkdir(exist_ok=True)
    for number, certificate in enumerate(made.certificates):
        (certificates / f"{number}.der").write_bytes(der(certificate))
    (launch.base / "root.pem").write_bytes(der(made.certificates[2]))
    (launch.base / "report").write_bytes(
        made.signed(
            measurement=bytes.fromhex(launched["digests"]["launch"]),  # type: ignore[index]
            host_data=bytes.fromhex(str(launched["host_data"])),
            id_key_digest=bytes.fromhex(block["id_key_digest"]),
            author_key_digest=bytes(48),
            policy=launched["policy"],
        )
    )
    given = ["owner", "report", launch.base / "report", *trusting(launch.base), "--any-report-data"]
    answer = launch.command(*given, "--lock", launch.right, "--format", "json", check=None).json
    return {one["name"] for one in answer["checks"] if one["ok"] is False}


@pytest.mark.parametrize(
    ("disk", "at", "message"),
    [
        ("image", b"a motd\n", "disk0 was changed: block "),
        ("image", KERNEL, "disk0 was changed: block "),
        ("tree", 2 * BLOCK, "the hash tree on disk1 was changed: block 0 of its level 0"),
    ],
)
def test_an_image_that_is_not_what_its_tree_says_is_refused_by_name(
    disk: str, at: bytes | int, message: str, launch: Launch
) -> None:
    file = launch.image if disk == "image" else launch.tree
    flip(file, file.read_bytes().index(at) if isinstance(at, bytes) else at)
    for command in ("owner digest", f"render --host {MILAN} --lock"):
        assert message in launch.command(*command.split(), PROFILE, *launch.options(), check=2).stderr


def test_the_guest_itself_notices_another_seed(launch: Launch) -> None:
    plan = launch.plan()
    assert plan.initdata and plan.initdata.document and plan.first_boot
    guest = InGuest(launch.base)
    (guest.base / "disk").write_bytes(initdata_disk(plan.initdata.document))
    guest.report(parse_initdata(plan.initdata.document).host_data)

    def given(seed: bytes) -> None:
        for name, content in read_back(seed, "joliet_path").items():
            (guest.seed / name).write_bytes(content)

    given(make_seed(plan.first_boot))
    assert guest.check()[0] == 0
    CASES["seed"].change(launch)
    other = launch.plan()
    assert other.first_boot
    given(make_seed(other.first_boot))
    code, said = guest.check()
    assert code == 1 and "user-data was changed" in said
