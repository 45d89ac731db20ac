"""Hooks and fixtures of the pytest plugin. Every pytest run imports this: it takes nothing that it does not use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sevlaunch.guest_type import GuestType

if TYPE_CHECKING:
    from sevlaunch.testing.guests import GuestFactory, Session

# Marker -> the type of guest that the host has to be able to run; KVM alone: none.
_MARKERS = {
    "needs_kvm": GuestType.NONE,
    "needs_sev": GuestType.SEV,
    "needs_sev_es": GuestType.SEV_ES,
    "needs_snp": GuestType.SEV_SNP,
}
# Further QEMU binaries, as in PATH.
_VARIABLE = "SEVLAUNCH_QEMU"

_FACTORY = pytest.StashKey["GuestFactory"]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known."""
    for marker, guest_type in _MARKERS.items():
        what = f"a host that runs {guest_type} guests" if guest_type.encrypted else "KVM"
        config.addinivalue_line("markers", f"{marker}: skips, with the reason, without {what}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this host can't run."""
    for marker, guest_type in _MARKERS.items():
        if item.get_closest_marker(marker):
            from sevlaunch.testing.guests import why_not

            reason = why_not(guest_type)
            if reason:
                pytest.skip(f"{marker}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add what the guests of a failed test said."""
    report = yield
    factory = item.stash.get(_FACTORY, None)
    if report.failed and factory:
        report.sections += factory.sections()
    return report


def found_binaries() -> list[str]:
    """The QEMU binaries in ``$SEVLAUNCH_QEMU`` (separated as in PATH) and the one on PATH."""
    named = [path for path in os.environ.get(_VARIABLE, "").split(os.pathsep) if path]
    on_path = shutil.which("qemu-system-x86_64")
    return list(dict.fromkeys([*named, *([on_path] if on_path else [])]))


@pytest.fixture(params=found_binaries() or [""])
def qemu_binary(request: pytest.FixtureRequest) -> str:
    """Each QEMU that was found; a test that takes it runs once with each, and its guests use it."""
    if not request.param:
        pytest.skip(f"no qemu-system-x86_64 on PATH: install QEMU, or name one in {_VARIABLE}")
    return str(request.param)


@pytest.fixture(scope="session")
def _sevlaunch_session() -> Iterator[Session]:
    from sevlaunch.testing.guests import Session

    with Session() as session:
        yield session


@pytest.fixture
def sev_guest(request: pytest.FixtureRequest, _sevlaunch_session: Session) -> Iterator[GuestFactory]:
    """Starts guests: ``guest = sev_guest("profile.yaml", "cpus=2")``; they end with the test.

    An encrypted guest is rehearsed unless the host can really run it.
    """
    from sevlaunch.testing.guests import GuestFactory

    binary = request.getfixturevalue("qemu_binary") if "qemu_binary" in request.fixturenames else None
    folder = Path(request.node.path).parent
    with GuestFactory(_sevlaunch_session, folder, binary) as factory:
        request.node.stash[_FACTORY] = factory
        yield factory
