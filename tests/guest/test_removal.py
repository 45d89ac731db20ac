"""`rm`: what outlives a guest goes, and nothing else, and not under a guest that runs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sevlaunch.errors import GuestNotFound, HostError
from sevlaunch.guest.removal import remove_state
from tests import needs
from tests.conftest import Command
from tests.guest.support import JSON, PLAIN, nothing_left, some_qemu
from tests.guest.test_variables import stores


def test_what_a_guest_left_is_removed_and_named(sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    sevlaunch("up", PLAIN, "--paused", "--name", "other", *some_qemu())
    sevlaunch("down", "--all", "--now")
    (store,) = stores(sevlaunch, "plain")
    kept = [str(path) for path in sorted(store.parent.iterdir())]
    assert len(kept) > 1
    assert sevlaunch("rm", "plain", *JSON).json == [{"name": "plain", "files": kept}]
    assert [path.name for path in sevlaunch.state.iterdir()] == ["other"]
    assert "nothing of a guest 'plain' is kept" in sevlaunch("rm", "plain", check=10).stderr
    told = sevlaunch("rm", "plain", "other", check=10)
    assert told.stdout.startswith("other: removed ")
    # It starts with a store of its own again.
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    assert stores(sevlaunch, "plain") == [store]
    sevlaunch("down", "plain", "--now")
    nothing_left(sevlaunch)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "in another runtime folder"])
def test_a_guest_that_runs_keeps_what_is_its_own(elsewhere: bool, sevlaunch: Command) -> None:
    sevlaunch("up", PLAIN, "--paused", *some_qemu())
    environment = dict(sevlaunch.environment)
    if elsewhere:
        (sevlaunch.base / "other").mkdir(mode=0o700)
        sevlaunch.environment["XDG_RUNTIME_DIR"] = str(sevlaunch.base / "other")
    assert "a guest 'plain' runs" in sevlaunch("rm", "plain", check=1).stderr
    sevlaunch.environment = environment
    assert stores(sevlaunch, "plain")
    sevlaunch("down", "plain", "--now")
    sevlaunch("rm", "plain")


@pytest.mark.parametrize("name", ["..", ".", "", "../x", ".rehearsal", "link", "file"])
def test_nothing_but_a_guests_own_folder_is_removed(name: str, base: Path) -> None:
    state = base / "state"
    for folder in (state / ".rehearsal", base / "x", base / "kept"):
        folder.mkdir(parents=True)
        (folder / "file").touch()
    (state / "link").symlink_to(base / "kept")
    (state / "file").touch()
    with pytest.raises(GuestNotFound):
        remove_state(name, root=base / "run", state=state)
    assert all((folder / "file").exists() for folder in (state / ".rehearsal", base / "x", base / "kept"))
    assert (state / "file").exists()


def test_links_in_it_go_and_what_they_name_stays(base: Path) -> None:
    state, kept = base / "state", base / "kept"
    (state / "guest/1").mkdir(parents=True)
    kept.mkdir()
    (kept / "file").touch()
    (state / "guest/1/link").symlink_to(kept / "file")
    (state / "guest/folder").symlink_to(kept)
    os.mkfifo(state / "guest/1/fifo")
    remove_state("guest", root=base / "run", state=state)
    assert list(state.iterdir()) == []
    assert (kept / "file").exists()


def test_what_belongs_to_somebody_else_stays(base: Path) -> None:
    needs.root("giving a folder away")
    folder = base / "state/guest"
    folder.mkdir(parents=True)
    os.chown(folder, 65534, 65534)
    with pytest.raises(HostError, match="is not this user's"):
        remove_state("guest", root=base / "run", state=base / "state")
    assert folder.exists()
