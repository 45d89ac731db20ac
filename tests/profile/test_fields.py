"""Values with a form of their own: binary values, port forwards, MAC addresses, numbers or auto."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sevlaunch.errors import ProfileError
from sevlaunch.profile.fields import split_forward
from sevlaunch.profile.loader import loads
from sevlaunch.profile.model import SevSecurity, SnpSecurity, UserNetwork
from sevlaunch.sevapi.constants import CERTIFICATE_BYTES, SESSION_BYTES

SESSION = bytes(range(SESSION_BYTES))


def host_data(value: str, base: Path) -> bytes | None:
    """The 32 bytes that the value stands for."""
    security = loads(f"security: {{type: sev-snp, host_data: {value}}}\n", base=base).profile.security
    assert isinstance(security, SnpSecurity)
    return security.host_data


def refusal(text: str, base: Path = Path("/base")) -> str:
    """The message of the one problem of a profile."""
    with pytest.raises(ProfileError) as caught:
        loads(text, base=base)
    (problem,) = caught.value.problems
    return problem.message


# The binary values of a SNP guest that stand alone, and their sizes.
SNP_BLOBS = {"guest_visible_workarounds": 16, "host_data": 32}


@pytest.mark.parametrize("key", SNP_BLOBS)
@pytest.mark.parametrize("form", ["base64", "hexadecimal", "upper", "0x"])
@settings(deadline=None)
@given(data=st.data())
def test_bytes_are_taken_in_each_spelling(key: str, form: str, data: st.DataObject) -> None:
    content = data.draw(st.binary(min_size=SNP_BLOBS[key], max_size=SNP_BLOBS[key]))
    text = {
        "base64": base64.b64encode(content).decode(),
        "hexadecimal": content.hex(),
        "upper": content.hex().upper(),
        "0x": f"0x{content.hex()}",
    }[form]
    security = loads(f'security: {{type: sev-snp, {key}: "{text}"}}\n', base=Path("/")).profile.security
    assert getattr(security, key) == content


def test_what_sha256sum_prints_needs_no_quotes() -> None:
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
    assert host_data(digest, Path("/")) == bytes.fromhex(digest)


def test_the_larger_values_are_taken_in_hexadecimal_too(tmp_path: Path) -> None:
    block, signed = bytes(range(96)), bytes(range(256)) * 16
    (tmp_path / "auth.hex").write_text(f"{signed.hex()[:4096]}\n{signed.hex()[4096:]}\n")
    text = f"security: {{type: sev-snp, id_block: {block.hex()}, id_auth: auth.hex}}\n"
    security = loads(text, base=tmp_path).profile.security
    assert isinstance(security, SnpSecurity)
    assert (security.id_block, security.id_auth) == (block, signed)


@pytest.mark.parametrize("form", ["raw", "base64", "lines", "hexadecimal", "line of digits"])
def test_bytes_are_taken_from_a_file_relative_to_the_profile(form: str, tmp_path: Path) -> None:
    content = bytes(range(32))
    encoded = {
        "raw": content,
        "base64": base64.b64encode(content),
        "lines": base64.encodebytes(content) + b"\n",
        "hexadecimal": content.hex().encode(),
        "line of digits": f"0x{content.hex().upper()}\r\n".encode(),
    }[form]
    (tmp_path / "data").write_bytes(encoded)
    assert host_data("data", tmp_path) == content
    assert host_data(str(tmp_path / "data"), Path("/")) == content


def test_a_file_whose_name_is_base64_of_another_length_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "abcd").write_bytes(bytes(32))
    assert host_data("abcd", tmp_path) == bytes(32)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found 0 bytes in "),
        (bytes(31), "found 31 bytes in "),
        (bytes(33), "found 33 bytes in "),
        (base64.b64encode(bytes(30)), "found base64 of 30 bytes or 20 bytes in hexadecimal in "),
        (bytes(48).hex().encode(), "found base64 of 72 bytes or 48 bytes in hexadecimal in "),
        (f"{bytes(32).hex()}  initdata.toml\n".encode(), "give the digits alone in "),
    ],
)
def test_a_file_of_another_length_is_refused(content: bytes, found: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(content)
    message = refusal("security: {type: sev-snp, host_data: data}\n", tmp_path)
    assert "wanted host data of 32 bytes, raw, in hexadecimal or base64" in message
    assert f"{found}{tmp_path}/data" in message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("missing", "wanted host data: can't read the file /base/missing: No such file"),
        ("/", "wanted host data: can't read the file /: Is a directory"),
        (f'"{base64.b64encode(bytes(31)).decode()}"', "wanted host data of 32 bytes, found base64 of 31 bytes"),
        (bytes(48).hex() + "a", "wanted host data of 32 bytes, found 48 and a half bytes in hexadecimal"),
        (bytes(range(48)).hex(), "wanted host data of 32 bytes, found base64 of 72 bytes or 48 bytes in hexadecimal"),
        (bytes(range(20)).hex(), "wanted host data of 32 bytes, found base64 of 30 bytes or 20 bytes in hexadecimal"),
        (
            f'"{bytes(32).hex()}  a.toml"',
            "wanted host data of 32 bytes, found a digest with the name of a file behind it",
        ),
        ("5", "wanted host data, 32 bytes, found a number: write hexadecimal digits in quotes"),
        ("0x" + "5" * 64, "wanted host data, 32 bytes, found a number: write hexadecimal digits in quotes"),
        ("1" * 32 + "e" + "1" * 31, "wanted host data, 32 bytes, found a number: write hexadecimal digits in quotes"),
        ("''", "wanted host data, 32 bytes as hexadecimal, base64 or the path of a file, found ''"),
        ("[a]", "wanted host data, 32 bytes as hexadecimal, base64 or the path of a file, found ['a']"),
    ],
)
def test_what_is_neither_bytes_nor_a_file_is_refused(value: str, message: str) -> None:
    assert refusal(f"security: {{type: sev-snp, host_data: {value}}}\n").startswith(message)


def test_the_owners_session_has_the_sizes_of_the_secure_processor(tmp_path: Path) -> None:
    (tmp_path / "godh.b64").write_bytes(base64.b64encode(bytes(CERTIFICATE_BYTES)))
    (tmp_path / "session.b64").write_bytes(base64.b64encode(SESSION))
    text = "security: {type: sev, dh_cert: godh.b64, session: session.b64}\n"
    security = loads(text, base=tmp_path).profile.security
    assert isinstance(security, SevSecurity)
    assert (len(security.dh_cert or b""), security.session) == (2084, SESSION)
    (tmp_path / "session.b64").write_bytes(base64.b64encode(SESSION[:-1]))
    assert "the owner's session of 128 bytes" in refusal(text, tmp_path)


@pytest.mark.parametrize(
    ("forward", "parts"),
    [
        ("tcp:127.0.0.1:2222:22", ("tcp", "127.0.0.1", 2222, 22)),
        ("tcp:2222:22", ("tcp", "", 2222, 22)),
        ("udp:0.0.0.0:53:65535", ("udp", "0.0.0.0", 53, 65535)),
        ("tcp:255.255.255.255:1:1", ("tcp", "255.255.255.255", 1, 1)),
        ("tcp:127.0.0.1:0:80", ("tcp", "127.0.0.1", 0, 80)),
    ],
)
def test_a_forward_is_taken_with_and_without_an_address(forward: str, parts: tuple[str, str, int, int]) -> None:
    (network,) = loads(f"networks: [{{type: user, forward: [{forward}]}}]\n").profile.networks
    assert isinstance(network, UserNetwork)
    assert network.forward == [forward]
    assert split_forward(forward) == parts


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        ("2222:22", "wanted tcp|udp:[IPV4:]HOSTPORT:GUESTPORT"),
        ("22", "wanted tcp|udp:"),
        ("icmp:1:1", "wanted tcp|udp:"),
        ("TCP:1:1", "wanted tcp|udp:"),
        ("tcp:host:1:1", "wanted tcp|udp:"),
        ('"tcp:1:1\\n"', "wanted tcp|udp:"),
        ('"tcp:1:1,hostfwd=tcp::2-:2"', "wanted tcp|udp:"),
        ("tcp:\u0661:1", "wanted tcp|udp:"),
        ("tcp:256.0.0.1:1:1", "wanted an IPv4 address, found '256.0.0.1'"),
        ("tcp:1:0", "wanted a port from 1 to 65535, found 0"),
        ("tcp:65536:1", "wanted a port from 1 to 65535, or 0 for one that is free, found 65536"),
        ("tcp:1:65536", "wanted a port from 1 to 65535, found 65536"),
    ],
)
def test_what_is_no_forward_is_refused(forward: str, message: str) -> None:
    assert refusal(f"networks: [{{type: user, forward: [{forward}]}}]\n").startswith(message)


def test_only_a_checked_forward_can_be_split() -> None:
    with pytest.raises(ValueError, match="no port forward"):
        split_forward("nonsense")


@pytest.mark.parametrize("mac", ["52:54:00:12:34:56", "0A:bc:DE:f0:12:34"])
def test_a_unicast_mac_address_is_taken_in_small_letters(mac: str) -> None:
    assert loads(f'networks: [{{type: user, mac: "{mac}"}}]\n').profile.networks[0].mac == mac.lower()


@pytest.mark.parametrize("mac", ["53:54:00:12:34:56", "ff:ff:ff:ff:ff:ff", "52:54:00:12:34", "52-54-00-12-34-56", "x"])
def test_what_is_no_unicast_mac_address_is_refused(mac: str) -> None:
    assert "wanted a unicast MAC address" in refusal(f'networks: [{{type: user, mac: "{mac}"}}]\n')


@pytest.mark.parametrize(
    ("value", "number"), [("auto", "auto"), ("51", 51), ("0x33", 51), ("'51'", 51), ("'0x33'", 51)]
)
def test_a_number_or_auto_is_taken(value: str, number: int | str) -> None:
    security = loads(f"security: {{type: sev, cbitpos: {value}}}\n").profile.security
    assert isinstance(security, SevSecurity)
    assert security.cbitpos == number


@pytest.mark.parametrize("value", ["31", "64", "-1", "true", "AUTO", "5.5", "''", "[51]", "'5 1'"])
def test_what_is_neither_a_number_nor_auto_is_refused(value: str) -> None:
    assert refusal(f"security: {{type: sev, cbitpos: {value}}}\n").startswith("wanted ")


@pytest.mark.parametrize(("count", "fine"), [(20, True), (21, False)])
def test_a_disks_serial_number_has_at_most_20_bytes(count: int, fine: bool) -> None:
    text = f"disks: [{{path: a, serial: {'s' * count}}}]\n"
    if fine:
        assert loads(text).profile.disks[0].serial == "s" * count
    else:
        assert refusal(text) == "wanted at most 20 bytes, found 21"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.qcow2", "qcow2"),
        ("a.raw", "raw"),
        ("a.VMDK", "vmdk"),
        ("a.vhd", "vpc"),
        ("a.img", None),
        ("/dev/vg/a", None),
    ],
)
def test_a_disks_name_promises_a_format_or_none(path: str, found: str | None) -> None:
    assert loads(f"disks: [{{path: {path}}}]\n").profile.disks[0].named_format == found


@pytest.mark.parametrize(
    "source",
    [
        "nbd:localhost:10809",
        "nbd+unix:///root?socket=/run/nbd",
        "rbd:pool/image",
        "https://example.org/noble.img",
        "iscsi://target/iqn/1",
        "ssh://host/disk.img",
        "gluster+tcp://host/volume/disk",
        "file:///srv/disk.img",
        "json:{}",
        "fat:rw:/srv",
    ],
)
def test_a_source_that_is_no_file_of_this_host_is_refused_as_such(source: str) -> None:
    message = refusal(f"disks: [{{path: '{source}'}}]\n")
    assert f"found a {source.partition(':')[0]} source" in message
    assert (
        loads(f"disks: [{{path: './{source}'}}]\n")
        .profile.disks[0]
        .source.endswith(source.replace("///", "/").replace("//", "/"))
    )


@pytest.mark.parametrize("size", ["0", "-1", "'0'", "''", "many", "true"])
def test_a_size_is_above_nothing(size: str) -> None:
    assert refusal(f"memory: {{size: {size}}}\n").startswith("wanted a size")
