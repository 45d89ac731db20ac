"""A test suite with a real Debian; sevlaunch image fetch debian-13 comes first. Run: pytest examples/test_debian.py"""

from pathlib import Path

from sevlaunch.testing.guests import GuestFactory

DEBIAN = Path(__file__).parent.parent / "profiles/debian.yaml"


def test_debian_comes_back_from_a_reboot(sev_guest: GuestFactory) -> None:
    guest = sev_guest(DEBIAN, "disks.0.overlay=ephemeral", wait=["ssh", "cloud-init"], wait_limit=900)
    assert guest.ssh("sudo sh -c 'echo kept > /etc/mark'").exit_code == 0
    guest.console.expect("login:", limit=900)
    guest.ssh("sudo systemctl reboot")
    guest.console.expect("login:", limit=900)
    assert guest.ssh("cat", "/etc/mark").stdout == b"kept\n"
    assert guest.powerdown(limit=300)
