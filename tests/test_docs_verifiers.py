"""docs/verifiers.md: each of its commands, and its example, as it stands."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest

from sevlaunch.owner.endorsement import root_fingerprint
from sevlaunch.owner.roots import AMD_ROOTS
from tests.conftest import HOSTS, ROOT, Command
from tests.owner.images import ovmf
from tests.owner.pki import pem, processor

TEXT = (ROOT / "docs/verifiers.md").read_text()


def test_the_commands(sevlaunch: Command) -> None:
    """From files alone: the owner has no QEMU."""
    (sevlaunch.base / "profiles").symlink_to(ROOT / "profiles")
    (sevlaunch.base / "firmware.fd").write_bytes(ovmf())
    found = [
        line.removeprefix("$ sevlaunch ")
        for block in re.findall(r"```console\n(.*?)```", TEXT, re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(found) == 4
    for line in found:
        command, _, file = line.partition(" > ")
        printed = sevlaunch(*shlex.split(command), cwd=sevlaunch.base).stdout
        assert printed
        if file:
            (sevlaunch.base / file).write_text(printed)
    assert (sevlaunch.base / "policy.rego").read_text().startswith("# Affirms")
    assert (sevlaunch.base / "launch.corim").exists()


def test_the_check_of_a_service_of_ones_own(sevlaunch: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    made = processor("Milan", version=3)
    (sevlaunch.base / "guest.yaml").write_text("firmware: {image: ovmf.fd}\nsecurity: {type: sev-snp, policy: smt}\n")
    (sevlaunch.base / "ovmf.fd").write_bytes(ovmf())
    host = HOSTS / "milan-qemu-10.0.json"
    lock = sevlaunch("render", sevlaunch.base / "guest.yaml", "--host", host, "--lock").stdout
    (sevlaunch.base / "guest.lock").write_text(lock)
    (sevlaunch.base / "keys").mkdir()
    (sevlaunch.base / "keys/chain.pem").write_bytes(pem(*made.certificates))
    monkeypatch.chdir(sevlaunch.base)
    names: dict[str, Any] = {}
    [example] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(example, "verifiers.md", "exec"), names)
    digest = bytes.fromhex(json.loads(lock)["digests"]["launch"])
    says = {"measurement": digest, "host_data": bytes(32), "report_data": b"n" * 64}
    assert not names["is_my_guest"](made.signed(**says), b"n" * 64)
    monkeypatch.setitem(AMD_ROOTS, root_fingerprint(made.certificates), "Milan")
    assert names["is_my_guest"](made.signed(**says), b"n" * 64)
    assert not names["is_my_guest"](made.signed(**says), b"m" * 64)
