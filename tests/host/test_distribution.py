"""os-release(5), as distributions write it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sevlaunch.host.distribution import distribution_of
from sevlaunch.host.facts import Distribution
from sevlaunch.host.system import System

DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nNAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n'
SLES = (
    'NAME=\'SLES\'\nVERSION_ID="15.7"\nPRETTY_NAME="SUSE Linux Enterprise Server 15 SP7"\nID="sles"\nID_LIKE="suse"\n'
)


@pytest.mark.parametrize(
    ("text", "found", "release"),
    [
        (DEBIAN, Distribution(id="debian", version="13", name="Debian GNU/Linux 13 (trixie)"), (13,)),
        (
            SLES,
            Distribution(id="sles", like=["suse"], version="15.7", name="SUSE Linux Enterprise Server 15 SP7"),
            (15, 7),
        ),
        ("# a comment\n\nID=debian\nBAD='\nA B=C\n", Distribution(id="debian"), ()),
        ("VERSION_ID=rolling\n", Distribution(version="rolling"), ()),
        ("", Distribution(), ()),
    ],
)
def test_what_is_read_of_it(text: str, found: Distribution, release: tuple[int, ...], tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text(text)
    assert distribution_of(System(root=tmp_path)) == found
    assert found.release == release


def test_the_vendors_copy_stands_in_where_there_is_no_other(tmp_path: Path) -> None:
    assert distribution_of(System(root=tmp_path)) == Distribution()
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text(DEBIAN)
    assert distribution_of(System(root=tmp_path)).id == "debian"
