"""A test suite with a real guest, which scripts/demo-guest builds. Run: pytest examples/test_demo.py"""

import re
from pathlib import Path

from sevlaunch.testing.guests import GuestFactory

DEMO = Path(__file__).parent.parent / "profiles/demo.yaml"


def test_the_guest_boots_and_computes(sev_guest: GuestFactory) -> None:
    guest = sev_guest(DEMO, "cpus=2")
    guest.console.expect("demo: ready", limit=180)
    guest.console.send("echo 6 times 7 is $((6 * 7))\n")
    assert guest.console.expect(re.compile(rb"is (\d+)\s"))[1] == b"42"
    assert guest.powerdown()
