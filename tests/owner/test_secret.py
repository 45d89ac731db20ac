"""`owner secret`: the published packets byte for byte, limits, and what libvirt's validator makes of them."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec.structs import replace

from sevlaunch.errors import InsecureUse, UnsupportedError, UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.answer import Answer
from sevlaunch.owner.claims import HostClaims
from sevlaunch.owner.digest import launch_digest
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.secret import Secret, check_injectable, make_packet, read_packet, read_secret, wrap_secrets
from sevlaunch.owner.verify import Expectation, verify_launch
from sevlaunch.sevapi.secret import LUKS_PASSPHRASE, MAX_PAYLOAD_BYTES, secret_table, unwrap_secret
from sevlaunch.sevapi.session import TransportKeys
from tests.conftest import Command
from tests.owner.images import ovmf
from tests.owner.launches import TEK, TIK, write_keys
from tests.owner.test_verify import ES, SEV

# sevctl's tests/secretbuild.rs, in numbers.
KEYS = TransportKeys(
    tek=bytes.fromhex("52a869b79ab9c13bb6a92b0561619cb3"), tik=bytes.fromhex("c6d5a9956133050912b24bbe5c372686")
)
MEASURE = base64.b64decode("TLeA7607lZQntLjRY1/i+sbtdSZ+75zxpz4Px9hzpBLwItF5Q2o4prA++3ZZv9ZS")[:32]
IV = base64.b64decode("rFR07U3TLH2YnsUj2SVZ7A==")
FIRST = Secret(LUKS_PASSPHRASE, b"MY-LUKS-PASSPHRASE")
SECOND = Secret(UUID("736869e5-aaaa-4973-92ec-06879ce3da0b"), b"SOME OTHER SECRET")
OTHER = UUID("23058844-597b-42fb-8259-a0f5d9d495af")


@pytest.mark.parametrize(
    ("secrets", "header", "payload"),
    [
        (
            [FIRST],
            "AAAAAKxUdO1N0yx9mJ7FI9klWey8FSzeYQ4X8K71VzNKLU/KQsIsQxLjtbhaPUewqshX5Q==",
            "0U3e5PcXv0UW+H4tSBFKOdCYfKE1+j38Bc2fuO16mYiyI+sWx7INfn+lgYj56GL12yyinDa+lVfCCwD/2w5cPA==",
        ),
        (
            [FIRST, SECOND],
            "AAAAAKxUdO1N0yx9mJ7FI9klWeyZ3r0dOEKHUOhIRqzGYYvTJgdMtBPL1nK6GD9aGET7Ng==",
            "0U3e5PcXv0UW+H4tSBFKObWYfKE1+j38Bc2fuO16mYiyI+sWx7INfn+lgYj56GL12yyinDa+lVfCC+WWs332lpLNUX1ZI3YK7vYgtys4"
            "X+uGxEIlkIQ90v8/w8ZFmQMe",
        ),
    ],
)
def test_sevctls_published_packets_come_out_the_same(secrets: list[Secret], header: str, payload: str) -> None:
    packet = make_packet(secrets, KEYS, MEASURE, iv=IV)
    assert base64.b64encode(packet.header).decode() == header
    assert base64.b64encode(packet.payload).decode() == payload


def test_the_largest_secret_fits_and_one_byte_more_does_not() -> None:
    # As in sevctl's tests: 16343 and 16344 bytes both fill the table.
    for size in (16343, 16344):
        packet = make_packet([Secret(OTHER, b"." * size)], KEYS, MEASURE)
        assert len(packet.payload) == MAX_PAYLOAD_BYTES
        plain = unwrap_secret(KEYS, packet.header, packet.payload, len(packet.payload), MEASURE)
        assert plain == secret_table([(OTHER, b"." * size)])
    with pytest.raises(UsageError, match="need 16400 bytes, one launch takes 16384"):
        make_packet([Secret(OTHER, b"." * 16345)], KEYS, MEASURE)


def test_two_packets_never_share_an_initialisation_vector() -> None:
    packets = [make_packet([FIRST], KEYS, MEASURE) for _ in range(2)]
    assert packets[0].header[4:20] != packets[1].header[4:20]
    assert packets[0].payload != packets[1].payload


def test_the_firmwares_area_is_a_limit() -> None:
    firmware = Firmware.of_image(ovmf(secret_area=(0x810000, 64)))
    make_packet([FIRST], KEYS, MEASURE, firmware=firmware)
    with pytest.raises(UsageError, match="need 96 bytes, the area of the firmware at 0x810000 has 64"):
        make_packet([FIRST, SECOND], KEYS, MEASURE, firmware=firmware)
    with pytest.raises(UsageError, match="no area for launch secrets"):
        make_packet([FIRST], KEYS, MEASURE, firmware=Firmware.of_image(ovmf(secret_area=(0, 0))))


def test_no_secret_or_one_guid_twice_is_refused() -> None:
    for secrets in ([], [FIRST, Secret(FIRST.guid, b"x")]):
        with pytest.raises(UsageError):
            make_packet(secrets, KEYS, MEASURE)


def test_a_secret_is_named_by_guid_or_alias(tmp_path: Path) -> None:
    file = tmp_path / "pass:word"
    file.write_bytes(b"secret")
    for name in ("luks", "luks-key", "736869E5-84f0-4973-92ec-06879ce3da0b"):
        assert read_secret(f"{name}:{file}") == Secret(LUKS_PASSPHRASE, b"secret")
    for wrong in ("luks", "luks:", f"key:{file}", f":{file}"):
        with pytest.raises(UsageError, match="--secret"):
            read_secret(wrong)
    assert "hidden" not in repr(Secret(LUKS_PASSPHRASE, b"hidden"))


def evidence_of(said: dict[str, Any], **changes: Any) -> HostClaims:
    """The evidence of a SEV launch, with ``said`` in its sev part."""
    return msgspec.convert({**replace(SEV, said=said).evidence(), **changes}, HostClaims)


def test_a_launch_in_its_secret_state_takes_a_secret() -> None:
    check_injectable(evidence_of({}))
    check_injectable(msgspec.convert(ES.evidence(), HostClaims))


@pytest.mark.parametrize("state", [None, "", "uninit", "launch-update", "running", "send-update", "receive-update"])
def test_a_launch_in_another_state_takes_none(state: str | None) -> None:
    with pytest.raises(UnsupportedError, match=f"is past the launch .state {state}."):
        check_injectable(evidence_of({"state": state}))


@pytest.mark.parametrize(
    ("said", "changes"),
    [({"enabled": False}, {}), ({"type": "sev-snp"}, {}), ({}, {"measurement": None})],
)
def test_a_guest_without_encryption_or_measurement_takes_none(said: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError, match="no SEV or SEV-ES guest with a measurement"):
        check_injectable(evidence_of(said, **changes))


@pytest.fixture
def wrapped(sevlaunch: Command, base: Path) -> list[str | Path]:
    """Arguments of `owner secret`, but for the secrets."""
    tik, tek = write_keys(base)
    arguments: list[str | Path] = ["owner", "secret", "--evidence", SEV.write(base), "--tik", tik, "--tek", tek]
    verdict = Answer.about(msgspec.convert(SEV.evidence(), HostClaims), verified=True)
    (base / "verdict.json").write_bytes(verdict.sealed(TIK).to_bytes())
    return [*arguments, "--header", base / "header", "--payload", base / "payload"]


def test_the_command_writes_what_the_processor_unwraps(
    wrapped: list[str | Path], sevlaunch: Command, base: Path
) -> None:
    (base / "two").write_bytes(b"second")
    (base / "ovmf.fd").write_bytes(ovmf())
    result = sevlaunch(
        *(*wrapped, "--secret", "luks:-", "--secret", f"{OTHER}:{base / 'two'}", "--firmware", base / "ovmf.fd"),
        *("--format", "json"),
        input="first",
    )
    assert result.json["secrets"] == [str(LUKS_PASSPHRASE), str(OTHER)]
    packet = read_packet(base / "header", base / "payload")
    measure = base64.b64decode(SEV.evidence()["measurement"])[:32]
    plain = unwrap_secret(TransportKeys(TEK, TIK), packet.header, packet.payload, len(packet.payload), measure)
    assert plain == secret_table([(LUKS_PASSPHRASE, b"first"), (OTHER, b"second")])
    for name in ("header", "payload"):
        assert base64.b64decode((base / name).read_bytes(), validate=True)
        assert stat.S_IMODE((base / name).stat().st_mode) == 0o600
    assert "first" not in result.stdout + result.stderr
    # A packet that is there already is not written over.
    assert "exists already" in sevlaunch(*wrapped, "--secret", "luks:-", check=2, input="x").stderr


def test_a_payload_that_can_t_be_written_leaves_no_header(
    wrapped: list[str | Path], sevlaunch: Command, base: Path
) -> None:
    (base / "payload").write_bytes(b"mine")
    sevlaunch(*wrapped, "--secret", "luks:-", check=2, input="x")
    assert not (base / "header").exists()
    assert (base / "payload").read_bytes() == b"mine"


def test_no_packet_is_made_for_a_guest_that_runs(wrapped: list[str | Path], sevlaunch: Command, base: Path) -> None:
    replace(SEV, said={"state": "running"}).write(base)
    refused = sevlaunch(*wrapped, "--secret", "luks:-", check=8, input="x")
    assert "state running" in refused.stderr
    assert not (base / "header").exists()


def test_the_library_wraps_after_a_yes_alone_and_before_the_guest_runs() -> None:
    keys, claims = TransportKeys(TEK, TIK), evidence_of({})
    right = Expectation(GuestType.SEV, 0x33, {"": launch_digest(SEV.launch)}, SEV.launch.firmware.sha256, None, (0, 0))
    yes = verify_launch(claims, right, TIK)
    assert wrap_secrets([FIRST], keys, claims, yes).payload
    no = verify_launch(claims, replace(right, policy=0x31), TIK)
    assert (no.matches, no.verified) == (False, False)
    with pytest.raises(InsecureUse, match="whoever made it would get the secret"):
        wrap_secrets([FIRST], keys, claims, no)
    with pytest.raises(UnsupportedError, match="past the launch"):
        wrap_secrets([FIRST], keys, evidence_of({"state": "running"}), yes)


@pytest.mark.parametrize("form", ["raw", "base64", "hex"])
def test_a_packet_is_read_raw_in_base64_or_in_hexadecimal(form: str, tmp_path: Path) -> None:
    for size in (1, 18, 100, 200, 3000):
        packet = make_packet([Secret(OTHER, b"x" * size)], KEYS, MEASURE)
        for name, content in (("header", packet.header), ("payload", packet.payload)):
            texts = {"raw": content, "base64": base64.b64encode(content) + b"\n", "hex": content.hex().encode()}
            (tmp_path / name).write_bytes(texts[form])
        assert read_packet(tmp_path / "header", tmp_path / "payload") == packet
    with pytest.raises(UsageError, match="exchanged"):
        read_packet(tmp_path / "payload", tmp_path / "header")
    largest = MAX_PAYLOAD_BYTES
    for size in (len(packet.payload) - 1, largest + 16):
        (tmp_path / "payload").write_bytes(bytes(size))
        with pytest.raises(UsageError, match="multiple of 16 bytes, at most 16384"):
            read_packet(tmp_path / "header", tmp_path / "payload")
    (tmp_path / "payload").write_bytes(bytes(largest))
    assert len(read_packet(tmp_path / "header", tmp_path / "payload").payload) == largest
