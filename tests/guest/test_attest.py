"""`attest`: a guest is asked for its report, over SSH and through its agent, and the answer is checked."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from sevlaunch import sync
from sevlaunch.errors import EvidenceError, UnsupportedError
from sevlaunch.guest.record import parse_record
from sevlaunch.owner.request import request_script
from sevlaunch.profile.initdata_values import parse_initdata, write_initdata
from sevlaunch.rehearsal.snp_processor import SnpGuest
from tests import needs
from tests.conftest import Command, wait_until
from tests.guest import stand_in
from tests.guest.support import PLAIN, nothing_left, some_qemu
from tests.owner.images import ovmf
from tests.rehearsal import emulated_guest as emulated

IMAGE = ovmf(size=0x20000)
MILAN = 0xA00F11
DOCUMENT = write_initdata("sha-256", {"aa.toml": "one"})
HOST_DATA = parse_initdata(DOCUMENT).host_data
# What the guest at the other end of the agent's channel does with a nonce.
_SEND = (
    "import socket, sys; s = socket.create_connection(('127.0.0.1', {port})); "
    "s.sendall(sys.stdin.buffer.read()); sys.stdout.buffer.write(s.makefile('rb').read())"
)
Respond = Callable[[bytes], bytes]


@pytest.fixture(scope="module")
def right() -> SnpGuest:
    """The guest of `guest.yaml`."""
    return emulated.launched(IMAGE, vcpus=2, signature=MILAN, host_data=HOST_DATA)


@pytest.fixture
def guest(sevlaunch: Command) -> Command:
    """A guest with a channel for an agent, and what its owner knows: profile and root."""
    sevlaunch("up", PLAIN, "--paused", "--set", "guest_agent=true", *some_qemu())
    (sevlaunch.base / "code.fd").write_bytes(IMAGE)
    (sevlaunch.base / "guest.yaml").write_text(
        "cpu: {model: EPYC-Milan-v2, count: 2}\nsecurity: {type: sev-snp}\nfirmware: {image: code.fd}\n"
    )
    (sevlaunch.base / "initdata.toml").write_bytes(DOCUMENT)
    (sevlaunch.base / "root.pem").write_bytes(emulated.root_of(emulated.platform()))
    return sevlaunch


def unshared() -> list[str]:
    """What runs a program in file systems of its own; skips by name where that can't be had."""
    unshare = [needs.program("unshare", "util-linux"), "--mount"]
    unshare += ["--user", "--map-root-user"] if os.geteuid() else []
    tried = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False)
    if tried.returncode and os.geteuid():
        pytest.skip(f"no user namespace can be had here: {tried.stderr.strip()}")
    if tried.returncode:
        pytest.skip(f"no mount namespace can be had here: {tried.stderr.strip()}")
    return unshare


@contextmanager
def agent(command: Command, set_up: str) -> Iterator[None]:
    """A real agent, in file systems of its own that ``set_up``, a script, changes."""
    program, unshare = needs.guest_agent(), unshared()
    socket, state = command.runtime / "plain/qemu/agent.sock", command.base / "agent"
    socket.unlink(missing_ok=True)
    state.mkdir(exist_ok=True)
    words = [str(program), "-m", "unix-listen", "-p", str(socket), "-t", str(state), "-f", str(state / "pid")]
    shims = command.base / "shims"
    # No module of this machine's is loaded for a test.
    modprobe = f"mkdir -p {shims}; ln -sf /bin/false {shims}/modprobe; PATH={shims}:$PATH\n"
    with subprocess.Popen([*unshare, "sh", "-c", f"{modprobe}{set_up}\nexec {shlex.join(words)}"]) as running:
        try:
            wait_until(socket.exists, 30, "the agent's socket")
            yield
        finally:
            running.terminate()


@contextmanager
def answered_by(command: Command, respond: Respond, *, provider: str = "sev_guest") -> Iterator[None]:
    """The agent's guest has reports, as ``respond`` makes them."""
    with emulated.answering(respond) as port:
        send = shlex.join([sys.executable, "-c", _SEND.format(port=port)])
        with agent(command, stand_in.script(send, folder=str(command.base / "shims"), provider=provider)):
            yield


def asking(command: Command, *more: str | Path) -> list[str | Path]:
    """The command, for an owner who trusts our root."""
    base = command.base
    return ["attest", "plain", "--profile", base / "guest.yaml", "--root", base / "root.pem", *more]


def test_a_right_guest_is_answered_with_yes_and_the_command_after_it_runs(guest: Command, right: SnpGuest) -> None:
    seen: list[bytes] = []

    def respond(data: bytes) -> bytes:
        seen.append(data)
        return emulated.answer(right, data)

    with answered_by(guest, respond):
        document = guest(*asking(guest, "--host-data", HOST_DATA.hex(), "--format", "json")).json
        assert (document["ok"], document["by"], document["search"]) == (True, "agent", None)
        assert document["nonce"] == document["report"]["report_data"] == seen[0].hex()
        assert Path(document["file"]).read_bytes()[:1184] == right_bytes(document, right)
        then = [
            "--then",
            "sh",
            "--",
            "-c",
            'echo "$1 $SEVLAUNCH_GUEST $SEVLAUNCH_NONCE"; wc -c < "$SEVLAUNCH_REPORT"; exit 5',
        ]
        result = guest(*asking(guest, *then, "zero", "a  b"), check=5)
        assert "yes: every check holds" in result.stdout
        assert f"a  b plain {seen[1].hex()}\n" in result.stdout
        assert "a test, not a proof" in result.stderr
        assert seen[0] != seen[1]
        # The library has the same.
        fetched = sync.fetch_report("plain", by="agent", root=guest.runtime)
        assert (fetched.nonce, fetched.by) == (seen[2], "agent")
    guest("down", "plain", "--now")
    nothing_left(guest)


def right_bytes(document: dict[str, str], right: SnpGuest) -> bytes:
    """The report, whose signature is another each time: what comes before it is compared."""
    content = Path(document["file"]).read_bytes()[:1184]
    assert content[:0x2A0] == right.report(bytes.fromhex(document["nonce"]))[:0x2A0]
    return content


def test_every_wrong_answer_is_a_no_with_its_reason_and_nothing_runs_then(guest: Command, right: SnpGuest) -> None:
    old, stranger = bytes(64), emulated.platform("another")
    other = emulated.launched(IMAGE, vcpus=4, signature=MILAN, host_data=HOST_DATA)
    theirs = emulated.launched(IMAGE, vcpus=2, signature=MILAN, host_data=HOST_DATA, on=stranger)
    bare = emulated.launched(IMAGE, vcpus=2, signature=MILAN)
    # By the one check that says no: what the guest answers, and the reason that is told.
    wrong: dict[str, tuple[Respond, str]] = {
        "report data": (lambda data: emulated.answer(right, old), old.hex()),
        "host data": (lambda data: emulated.answer(bare, data), bytes(32).hex()),
        "measurement": (lambda data: emulated.answer(other, data), "would match if vcpus were 4 (profile says 2)"),
        "root": (lambda data: emulated.answer(theirs, data, on=stranger), "wanted the root that was given"),
        "signature": (lambda data: emulated.answer(theirs, data), "VCEK or VLEK certificates given signed it"),
    }
    answers = {"now": wrong["measurement"][0]}
    known = ("--initdata", guest.base / "initdata.toml")
    then = ("--then", "touch", "--", guest.base / "ran")
    with answered_by(guest, lambda data: answers["now"](data)):
        for name, (respond, reason) in wrong.items():
            answers["now"] = respond
            result = guest(*asking(guest, *known, "--format", "json", *then), check=1)
            assert [one["name"] for one in result.json["checks"] if one["ok"] is False] == [name]
            assert reason in result.stdout, name
        assert "no: a check fails" in guest(*asking(guest, *known, *then), check=1).stdout
        answers["now"] = lambda data: emulated.answer(right, data)
        (guest.base / "other.toml").write_bytes(DOCUMENT.replace(b"one", b"two"))
        for options in (("--host-data", bytes(32).hex()), ("--initdata", guest.base / "other.toml")):
            result = guest(*asking(guest, *options), check=1)
            assert any(line.split()[:3] == ["host", "data", "no"] for line in result.stdout.splitlines())
        guest(*asking(guest, *known))
        # A profile with init-data says by itself what HOST_DATA has to be.
        of_profile = ("--set", f"initdata={guest.base / 'initdata.toml'}", "--format", "json")
        checks = guest(*asking(guest, *of_profile)).json["checks"]
        assert "host data" in {one["name"] for one in checks}
    assert not (guest.base / "ran").exists()
    guest("down", "plain", "--now")


def test_a_guest_with_vsock_is_asked_over_it(guest: Command, right: SnpGuest) -> None:
    """No vsock here reaches a guest: a program called ssh stands in, which sees how ssh would have connected."""
    file, shims, seen = guest.runtime / "plain/guest.json", guest.base / "shims", guest.base / "seen"
    file.write_bytes(replace(parse_record(file.read_bytes()), vsock_cid=7).to_json())
    shims.mkdir()
    with emulated.answering(lambda data: emulated.answer(right, data)) as port:
        send = shlex.join([sys.executable, "-c", _SEND.format(port=port)])
        set_up = f"PATH={shims}:$PATH\n{stand_in.script(send, folder=str(shims))}exec sh -s"
        words = shlex.join([*unshared(), "sh", "-c", set_up])
        (guest.base / "bin").mkdir()
        program = guest.base / "bin/ssh"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {seen}\nexec {words}\n')
        program.chmod(0o755)
        guest.environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
        document = guest(*asking(guest, "--format", "json")).json
    assert (document["ok"], document["by"]) == (True, "ssh")
    [connecting] = [line for line in seen.read_text().splitlines() if line.startswith("ProxyCommand=")]
    assert connecting.endswith("vsock_connection.py 7 22")
    guest("down", "plain", "--now")
    nothing_left(guest)


def test_an_answer_that_is_none_and_a_guest_without_reports_are_told(guest: Command) -> None:
    with answered_by(guest, lambda data: b"x" * 2000):
        assert "is no report" in guest(*asking(guest), check=7).stderr
        with pytest.raises(EvidenceError):
            sync.fetch_report("plain", root=guest.runtime)
    with answered_by(guest, lambda data: b"", provider="tdx_guest"):
        assert "reports are made by tdx_guest here" in guest(*asking(guest), check=8).stderr
    with agent(guest, "mount -t tmpfs tmpfs /sys/kernel"):
        told = guest(*asking(guest), check=8)
        assert "plain has no attestation report" in told.stderr
        assert "/dev/sev-guest" in told.stderr
        with pytest.raises(UnsupportedError):
            sync.fetch_report("plain", root=guest.runtime)
    guest("down", "plain", "--now")
    nothing_left(guest)


def test_an_older_kernel_is_asked_through_snpguest(guest: Command, right: SnpGuest) -> None:
    shims, certificates = guest.base / "shims", guest.base / "certs"
    certificates.mkdir()
    for number, content in enumerate(emulated.platform().endorsement):
        (certificates / str(number)).write_bytes(content)
    with emulated.answering(lambda data: right.report(data)) as port:
        send = shlex.join([sys.executable, "-c", _SEND.format(port=port)])
        made = f'#!/bin/sh\n[ "$1" = report ] || exit 2\n{send} < "$3" > "$2"\n'
        set_up = (
            "mount -t tmpfs tmpfs /sys/kernel; old=$(mktemp -d); mount --rbind /dev $old; mount -t tmpfs tmpfs /dev; "
            "for one in null urandom; do touch /dev/$one; mount --bind $old/$one /dev/$one; done; "
            "touch /dev/sev-guest\n"
            f"printf %s {shlex.quote(made)} > {shims}/snpguest; chmod 755 {shims}/snpguest"
        )
        with agent(guest, set_up):
            guest(*asking(guest, "--certs", certificates))
    with agent(guest, set_up.splitlines()[0] + f"\nrm -f {shims}/snpguest"):
        assert "it takes Linux 6.7, or snpguest" in guest(*asking(guest), check=8).stderr
    guest("down", "plain", "--now")


def test_what_can_not_be_asked_is_said_before_the_guest_is(guest: Command) -> None:
    base = guest.base
    assert "is no SEV-SNP guest" in guest("attest", "plain", check=2).stderr
    assert "there is no program" in guest(*asking(guest, "--then", base / "missing"), check=2).stderr
    assert "--then PROGRAM" in guest(*asking(guest, "--", "word"), check=2).stderr
    assert "nonce" in guest(*asking(guest, "--nonce", base / "root.pem"), check=2).stderr
    guest("attest", "nobody", check=10)
    assert "within 0.5 s" in guest(*asking(guest, "--timeout", "0.5"), check=6).stderr
    assert "no port for SSH" in guest(*asking(guest, "--by", "ssh"), check=2).stderr
    guest("down", "plain", "--now")
    guest(*asking(guest), check=10)


def test_a_nonce_is_in_the_script_as_octal() -> None:
    nonce = bytes(range(64))
    assert r"printf '\000\001\002" in request_script(nonce)
    # Every shell writes the same bytes; what is no nonce is refused.
    for shell in ("sh", "bash"):
        line = next(line for line in request_script(b"%\\'\"$`\n" + nonce[7:]).splitlines() if "printf" in line)
        done = subprocess.run([shell, "-c", line], capture_output=True, check=True)
        assert done.stdout == b"%\\'\"$`\n" + nonce[7:]
    with pytest.raises(ValueError, match="64 bytes"):
        request_script(nonce[1:])


def test_a_request_is_a_script_and_a_new_nonce(sevlaunch: Command) -> None:
    printed = sevlaunch("owner", "request", sevlaunch.base / "nonce").stdout
    assert printed == request_script((sevlaunch.base / "nonce").read_bytes())
    sevlaunch("owner", "request", sevlaunch.base / "nonce", check=2)
    assert json.dumps(printed)
