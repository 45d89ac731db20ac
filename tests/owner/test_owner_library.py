"""The owner's library: its names are pinned, loaded when they are used, and the checks may be made in many threads."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sevlaunch.owner import library
from tests.conftest import ROOT
from tests.owner.pki import flipped, processor
from tests.owner.reports import trusted, wanting

PINNED = (ROOT / "tests/owner/public-names.txt").read_text().split()


def test_the_names_are_pinned_and_there() -> None:
    assert library.__all__ == sorted(PINNED)
    for name in PINNED:
        found = getattr(library, name)
        assert found.__name__ == name
        assert found.__doc__
    assert set(PINNED) <= set(dir(library))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        library.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_checks_take_neither_processes_nor_the_network() -> None:
    names = "verify_report, report_from_bytes, launch_digest"
    program = f"from sevlaunch.owner.library import {names}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert not loaded & {
        "asyncio",
        "qemu",
        "http.client",
        "urllib.request",
        "sevlaunch.guest",
        "sevlaunch.plan",
        "cbor2",
    }


def test_threads_that_check_at_once_get_each_their_own_answer() -> None:
    ours = processor("Genoa", version=3)
    trust = trusted(ours)
    right = ours.signed()
    wrong = flipped(right, 0x90 * 8)

    def check(number: int) -> bool:
        content = wrong if number % 3 else right
        return library.verify_report(content, ours.certificates, wanting(), trust).verified

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(check, range(90))) == [number % 3 == 0 for number in range(90)]
