"""A store of UEFI variables belongs to one guest: not to all of its name, and not to two that run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sevlaunch.guest.locks import VARIABLES
from tests import needs
from tests.conftest import PROFILES, Command
from tests.guest.support import JSON, PLAIN, lock_of, some_qemu


def stores(command: Command, name: str) -> list[Path]:
    """The stores of the guests of a name."""
    return sorted((command.state / name).glob("*/VARS.fd"))


def store_of(command: list[str]) -> Path:
    """The store in QEMU's command line."""
    (found,) = (argument for argument in command if "node-name=pflash1" in argument)
    return Path(found.rpartition("file.filename=")[2])


def test_two_profiles_of_one_name_have_a_store_each(sevlaunch: Command) -> None:
    profiles = [sevlaunch.base / folder / "web.yaml" for folder in ("one", "two")]
    found = []
    for profile in profiles:
        profile.parent.mkdir()
        shutil.copy(PLAIN, profile)
        up = sevlaunch("up", profile, "--set", "name=web", "--paused", *JSON, *some_qemu()).json
        found.append(store_of(up["command"]))
        sevlaunch("down", "web", "--now")
    assert sorted(found) == stores(sevlaunch, "web")
    assert len(set(found)) == 2


def test_a_profile_is_the_same_one_by_each_of_its_paths(sevlaunch: Command) -> None:
    shutil.copy(PLAIN, sevlaunch.base / "web.yaml")
    (sevlaunch.base / "link.yaml").symlink_to("web.yaml")
    for profile, folder in (("web.yaml", sevlaunch.base), (str(sevlaunch.base / "link.yaml"), "/")):
        sevlaunch("up", profile, "--name", "web", "--paused", *some_qemu(), cwd=folder)
        sevlaunch("down", "web", "--now")
    assert len(stores(sevlaunch, "web")) == 1


def test_names_and_numbers_have_a_store_each(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", "--count", "2", "--name", "many", *some_qemu())
    (first,), (second,) = stores(sevlaunch, "many-1"), stores(sevlaunch, "many-2")
    assert lock_of(first, VARIABLES) and lock_of(second, VARIABLES)
    sevlaunch("down", "--all", "--now")
    assert lock_of(first, VARIABLES) is None


@pytest.mark.parametrize("rehearse", [False, True])
def test_the_same_guest_in_another_runtime_folder_is_refused_while_it_runs(sevlaunch: Command, rehearse: bool) -> None:
    if rehearse:
        needs.rehearsal()
    profile = (PROFILES / "sev.yaml", "--rehearse") if rehearse else (PLAIN,)
    arguments = ("up", *profile, "--set", "memory=64M", "--name", "one", "--paused", *some_qemu())
    sevlaunch(*arguments)
    (store,) = stores(sevlaunch, "one")
    (sevlaunch.base / "elsewhere").mkdir(mode=0o700)
    usual, elsewhere = sevlaunch.environment, {"XDG_RUNTIME_DIR": str(sevlaunch.base / "elsewhere")}
    sevlaunch.environment = usual | elsewhere
    refused = sevlaunch(*arguments, check=4)
    assert f"the NVRAM {store} belongs to another guest that runs" in refused.stderr
    assert "another name with --name" in refused.stderr
    assert sevlaunch("ps", *JSON).json == []
    sevlaunch.environment = usual
    sevlaunch("down", "one", "--now")
    sevlaunch.environment = usual | elsewhere
    sevlaunch(*arguments)
    sevlaunch("down", "one", "--now")


def test_one_store_that_two_profiles_name_is_for_one_at_a_time(sevlaunch: Command) -> None:
    code, template = needs.ovmf()
    store = sevlaunch.base / "shared.fd"
    keys = ("--set", f"firmware={{code: {code}, vars: {template}, nvram: {store}}}", "--paused", *some_qemu())
    sevlaunch("up", PLAIN, "--name", "one", *keys)
    refused = sevlaunch("up", PLAIN, "--name", "two", *keys, check=4)
    assert f"the NVRAM {store} belongs to another guest that runs" in refused.stderr
    sevlaunch("down", "one", "--now")
    sevlaunch("up", PLAIN, "--name", "two", *keys)
    assert stores(sevlaunch, "one") == []


def test_what_outlives_a_guest_is_for_its_user_alone(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--name", "one", "--paused", *some_qemu())
    (store,) = stores(sevlaunch, "one")
    modes = [oct(path.stat().st_mode & 0o777) for path in (store, store.parent, store.parent.parent)]
    assert modes == [oct(0o600), oct(0o700), oct(0o700)]
    assert sorted(path.name for path in store.parent.iterdir()) == ["VARS.fd", "console.log", "console.times"]
