"""profiles/measured.yaml boots: its systemd opens the root and takes the credential, its cloud-init the checked seed.

Under TCG, which has no report: the check compares seed and init-data. A boot takes one to three minutes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sevlaunch.image.in_guest import UNIT_NAME
from tests import needs
from tests.conftest import Command, wait_for_console
from tests.guest.support import nothing_left, some_qemu
from tests.guest.test_boot_from import PATIENT
from tests.hash_trees import flip
from tests.measured import PROFILE, on

LIMIT = 900.0
# A guest without SEV has no report: this says so, and is measured as every credential is. systemd-debug-generator(8).
WITHOUT_REPORT = "[Service]\nExecStart=\nExecStart=/usr/lib/sevlaunch/check-seed --without-report\n"
CREDENTIALS = {
    "motd": {"text": "hello from the profile"},
    f"systemd.unit-dropin.{UNIT_NAME}": {"text": WITHOUT_REPORT},
}

pytestmark = pytest.mark.soak


@pytest.fixture
def tree(base: Path) -> Path:
    """Where the hash tree of the image is."""
    return base / "root.raw.verity"


@pytest.fixture
def started(sevlaunch: Command, base: Path, tree: Path) -> Iterator[tuple[str | Path, ...]]:
    """What starts the profile without SEV; nothing is left of it in the end."""
    image = needs.measured_debian()
    needs.program("veritysetup", "cryptsetup-bin")
    sevlaunch.environment["XDG_CACHE_HOME"] = str(base / "cache")
    sevlaunch("image", "verity", image, "--output", tree, limit=300)
    said = {
        "security": "none",
        "accel": "tcg",
        "boot.credentials": json.dumps(CREDENTIALS),
        "boot.cmdline_extra": PATIENT,
    }
    options = [word for key, value in said.items() for word in ("--set", f"{key}={value}")]
    yield "up", PROFILE, *some_qemu(), *on(image, tree), *options
    sevlaunch("down", "measured", "--now", check=None)
    nothing_left(sevlaunch)


def reported(sevlaunch: Command) -> list[str]:
    """What the guest says of itself."""
    console = wait_for_console(sevlaunch, "measured", "report: done", limit=LIMIT)
    return re.findall(r"report: (.*?)\r?$", console, re.MULTILINE)


def test_the_guest_itself_reports_all_that_is_measured(started: tuple[str | Path, ...], sevlaunch: Command) -> None:
    sevlaunch(*started, limit=300)
    reports = reported(sevlaunch)
    assert "verity verified" in reports
    assert any(line.startswith("root /dev/mapper/root ro,") for line in reports)
    assert "credential motd hello from the profile" in reports
    bound = sevlaunch("owner", "initdata", PROFILE, "--format", "json").json
    assert any("NOTHING IS PROVED" in line for line in reports)
    seed = f"the seed is the bound one: meta-data, user-data; the init-data is that of HOST_DATA {bound['host_data']}"
    assert f"seed check: {seed}" in reports
    assert "cloud-init active hello from the seed" in reports


def test_with_the_check_as_it_is_a_guest_without_a_report_gets_no_seed(
    started: tuple[str | Path, ...], sevlaunch: Command
) -> None:
    sevlaunch(*started, "--set", "boot.credentials={motd: {text: another}}", limit=300)
    reports = reported(sevlaunch)
    assert "credential motd another" in reports
    assert any("seed check: REFUSED: this guest has no report" in line for line in reports)
    assert any(re.match(r"cloud-init (inactive|failed) $", line) for line in reports)


def test_it_does_not_come_up_when_the_tree_is_another_one(
    started: tuple[str | Path, ...], tree: Path, sevlaunch: Command
) -> None:
    sevlaunch(*started, "--paused", limit=300)
    # The host changes the tree's top block behind sevlaunch's back.
    flip(tree, 4096)
    sevlaunch("resume", "measured")
    # Its initrd waits for a root that nothing can be read of.
    console = wait_for_console(sevlaunch, "measured", "metadata block 1 is corrupted", limit=LIMIT)
    assert "report: " not in console
