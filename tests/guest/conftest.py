"""Soak runs only on demand."""

from __future__ import annotations

import os

import pytest


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a long run unless SEVLAUNCH_SOAK=1 or ``-m soak`` asks for it."""
    wanted = os.environ.get("SEVLAUNCH_SOAK") or "soak" in item.config.getoption("markexpr")
    if item.get_closest_marker("soak") and not wanted:
        pytest.skip("a long run: SEVLAUNCH_SOAK=1 or -m soak asks for it")
