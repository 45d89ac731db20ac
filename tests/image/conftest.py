"""A web server, and a cache of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sevlaunch.image import catalogue
from tests.conftest import Command
from tests.image.server import Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server on loopback."""
    with serving() as running:
        yield running


@pytest.fixture
def cache(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of images of this process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "cache"))
    for name in (catalogue.CATALOGUE_VARIABLE, catalogue.MIRROR_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    return base / "cache/sevlaunch/images"


@pytest.fixture
def sevlaunch(sevlaunch: Command, base: Path) -> Command:
    """The command, with a cache of the test's own: elsewhere all share what is known of QEMU."""
    sevlaunch.environment["XDG_CACHE_HOME"] = str(base / "cache")
    return sevlaunch
