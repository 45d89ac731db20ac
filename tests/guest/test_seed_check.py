"""The guest's own check of its seed in a Debian: cloud-init gets what is bound, and runs on nothing else.

Under TCG, which has no report: the check compares seed and init-data. A boot takes one to five minutes.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sevlaunch.image.in_guest import UNIT_NAME, write_seed_check
from tests import needs
from tests.conftest import Command, wait_until
from tests.guest.support import nothing_left, some_qemu

LIMIT = 900.0
WAIT = ("--wait", "ssh", "--wait-timeout", str(LIMIT))
# As the image of a test has it: a guest without SEV has no report.
WITHOUT_REPORT = "[Service]\nExecStart=\nExecStart=/usr/lib/sevlaunch/check-seed --without-report\n"

pytestmark = pytest.mark.soak


@pytest.fixture
def public_key(sevlaunch: Command, base: Path) -> Iterator[str]:
    """A public key for SSH, whose private one an agent has: a seed that is bound names keys, which ssh has to find."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    (base / "key").touch(0o600)
    (base / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    agent, add = (needs.program(name, "openssh-client") for name in ("ssh-agent", "ssh-add"))
    socket = base / "ssh-agent"
    # A process with the whole path in its command line would be one of a guest, left behind.
    with subprocess.Popen([agent, "-D", "-a", socket.name], cwd=base, stdout=subprocess.DEVNULL) as running:
        try:
            wait_until(socket.exists, 30, "the agent's socket")
            sevlaunch.environment["SSH_AUTH_SOCK"] = str(socket)
            subprocess.run([add, "-q", base / "key"], env=sevlaunch.environment, check=True, timeout=60)
            yield key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        finally:
            running.terminate()


def of_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same, of root; a deep copy would be one of the archive, too."""
    return entry.replace(uid=0, gid=0, uname="", gname="", deep=False)


def test_cloud_init_runs_on_the_bound_seed_alone(public_key: str, sevlaunch: Command, base: Path) -> None:
    needs.program("qemu-img", "qemu-utils")
    profile = base / "checked.yaml"
    said = {
        "accel": "tcg",
        "cpu": {"count": 2},
        "memory": "1G",
        "disks": [{"image": str(needs.debian_disk())}],
        "networks": [{"type": "user", "ssh": "auto"}],
        "first_boot": {"ssh_keys": [public_key], "run": ["echo one >> /ran"]},
        "initdata": {"bind": ["first_boot"]},
    }
    profile.write_text(json.dumps(said))
    started = ("up", profile, *some_qemu(), *WAIT)
    sevlaunch(*started, limit=2 * LIMIT)

    def typed(command: str, check: int = 0) -> str:
        return sevlaunch("ssh", "checked", command, limit=LIMIT, check=check).stdout

    write_seed_check(base / "root")
    drop_in = base / f"root/etc/systemd/system/{UNIT_NAME}.d/test.conf"
    drop_in.parent.mkdir()
    drop_in.write_text(WITHOUT_REPORT)
    with tarfile.open(base / "check.tar", "w") as archive:
        archive.add(base / "root", arcname=".", filter=of_root)
    sevlaunch("cp", base / "check.tar", "checked:check.tar", limit=LIMIT)
    typed("sudo tar -x -f check.tar -C / --no-overwrite-dir && sudo cloud-init clean && sync")
    # The document as it is now is what the next launches are bound to.
    (base / "initdata.toml").write_text(sevlaunch("owner", "initdata", profile).stdout)
    sevlaunch("down", "checked", "--now")

    # What was cleaned makes its host keys anew.
    (known_hosts,) = sevlaunch.state.rglob("known_hosts")
    known_hosts.unlink()
    bound = ("--set", f"initdata={base / 'initdata.toml'}")
    sevlaunch(*started, *bound, "--wait", "cloud-init", limit=2 * LIMIT)
    assert typed(f"systemctl is-active {UNIT_NAME}") == "active\n"
    journal = typed(f"sudo journalctl -b -o cat -u {UNIT_NAME}")
    assert "NOTHING IS PROVED" in journal and "the seed is the bound one: meta-data, user-data" in journal
    assert typed("sudo ls /var/lib/cloud/seed/nocloud") == "meta-data\nuser-data\n"
    assert "/var/lib/cloud/seed/nocloud" in typed("sudo cat /var/lib/cloud/instance/datasource")
    # Its new host keys have to be on the disk before it is ended as by a power cut, or sshd does not start again.
    assert typed("cat /ran && sync") == "one\none\n"
    sevlaunch("down", "checked", "--now")

    # The host gives another seed with the same init-data: nothing of it is done.
    sevlaunch(*started, *bound, "--set", "first_boot.run=[echo two >> /ran]", limit=2 * LIMIT)
    asked = f"sudo journalctl -b -o cat -u {UNIT_NAME}; systemctl is-active {UNIT_NAME} cloud-init-local; cat /ran"
    told = typed(asked)
    assert "user-data was changed" in told
    assert told.endswith("\nfailed\ninactive\none\none\n")
    sevlaunch("down", "checked", "--now")
    nothing_left(sevlaunch)
