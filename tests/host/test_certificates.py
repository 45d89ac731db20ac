"""`host --pdh`: the secure processor's certificates, or why there are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sevlaunch.errors import HostError
from sevlaunch.host.certificates import platform_certificates
from sevlaunch.owner.chain import Chain, parse_sev_certificates, verify_chain
from tests import needs
from tests.conftest import Command
from tests.published import sev_capabilities


def fake_qemu(folder: Path, reply: dict[str, Any]) -> Path:
    """A QEMU that gives ``reply`` to query-sev-capabilities."""
    (folder / "reply.json").write_text(json.dumps(reply))
    qemu = folder / "qemu"
    qemu.write_text(
        "#!/usr/bin/env python3\n"
        "import json, sys\n"
        f"reply = open({str(folder / 'reply.json')!r}).read()\n"
        "for line in sys.stdin:\n"
        "    name = json.loads(line)['execute']\n"
        "    print(reply if name == 'query-sev-capabilities' else '{\"return\": {}}')\n"
        "    if name == 'quit': break\n"
    )
    qemu.chmod(0o755)
    return qemu


def test_a_real_reply_becomes_files_that_an_owner_can_use(tmp_path: Path, sevlaunch: Command) -> None:
    qemu, pdh = fake_qemu(tmp_path, sev_capabilities()), tmp_path / "host.pdh"
    result = sevlaunch("host", "--qemu", qemu, "--pdh", pdh).json
    chain = tmp_path / "host.pdh.chain"
    assert (result["pdh"], result["chain"]) == (str(pdh), str(chain))
    assert (pdh.stat().st_size, chain.stat().st_size) == (2084, 6252)
    assert result["cek_address"] == f"https://kdsintf.amd.com/cek/id/{result['chip_id']}"
    found = verify_chain(Chain.of(parse_sev_certificates(pdh.read_bytes() + chain.read_bytes())))
    assert [check.ok for check in found.checks[:3]] == [True, True, True]
    sevlaunch(
        "owner", "session", "--pdh", pdh, "--chain", chain, "--policy", "0x33", "--insecure", "--out", tmp_path / "vm"
    )
    # Nothing is overwritten.
    assert "exists already" in sevlaunch("host", "--qemu", qemu, "--pdh", pdh, check=2).stderr
    text = sevlaunch("host", "--qemu", qemu, "--pdh", tmp_path / "b", "--format", "text").stdout
    assert result["cek_address"] in text


def test_qemu_before_7_1_tells_no_chip_id(tmp_path: Path) -> None:
    reply = sev_capabilities()
    del reply["return"]["cpu0-id"]
    found = platform_certificates(str(fake_qemu(tmp_path, reply)))
    assert (found.chip_id, found.cek_address) == (None, None)


def test_a_host_without_sev_says_why(qemu_binary: str, tmp_path: Path, sevlaunch: Command) -> None:
    needs.no_sev("it has certificates")
    result = sevlaunch("host", "--qemu", qemu_binary, "--pdh", tmp_path / "pdh", check=4)
    error = json.loads(result.stderr)["error"]
    assert error["kind"] == "HostError"
    assert "QEMU says: " in error["message"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "reply",
    [
        {"return": {}},
        {"return": []},
        {"return": {"pdh": "!", "cert-chain": ""}},
        {"return": {"pdh": "AAAA", "cert-chain": "AAAA"}},
        {"return": {"pdh": 1, "cert-chain": 2}},
        {"error": "broken"},
        {"error": {"class": "GenericError", "desc": "SEV is not enabled"}},
    ],
)
def test_an_answer_that_is_none_is_a_host_error(reply: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(HostError):
        platform_certificates(str(fake_qemu(tmp_path, reply)))
