"""Guest policies: names and numbers both ways, reserved bits, versions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevlaunch.profile.loader import loads
from sevlaunch.profile.model import SevSecurity, SnpSecurity
from sevlaunch.profile.policy import (
    SEV_POLICY,
    SNP_POLICY,
    PolicyFormat,
    describe_policy,
    parse_policy,
    policy_warnings,
)

FORMATS = [SEV_POLICY, SNP_POLICY]


def valid_numbers(policy_format: PolicyFormat) -> st.SearchStrategy[int]:
    """Every number that the format allows."""
    free = policy_format.known & ~policy_format.always
    return st.integers(0, (1 << policy_format.width) - 1).map(lambda number: number & free | policy_format.always)


def sets_of_names(policy_format: PolicyFormat) -> st.SearchStrategy[list[str]]:
    """Every set of bits, in any order, with and without a version."""
    byte = st.integers(0, 255)
    version = st.builds(lambda major, minor: [f"{policy_format.version}-{major}.{minor}"], byte, byte)
    bits = st.lists(st.sampled_from(list(policy_format.bits)), unique=True)
    return st.builds(lambda names, more: names + more, bits, st.just([]) | version)


@pytest.mark.parametrize("policy_format", FORMATS, ids=lambda found: found.title)
@given(data=st.data())
def test_a_number_becomes_names_and_the_same_number_again(policy_format: PolicyFormat, data: st.DataObject) -> None:
    number = data.draw(valid_numbers(policy_format))
    names = describe_policy(number, policy_format)
    for spelling in (number, hex(number), str(number), hex(number).upper().replace("X", "x")):
        assert parse_policy(spelling, policy_format) == number
    assert parse_policy(names, policy_format) == number
    if names:
        assert parse_policy(", ".join(names), policy_format) == number


@pytest.mark.parametrize("policy_format", FORMATS, ids=lambda found: found.title)
@given(data=st.data())
def test_names_become_a_number_and_the_same_names_again(policy_format: PolicyFormat, data: st.DataObject) -> None:
    names = data.draw(sets_of_names(policy_format))
    number = parse_policy(names, policy_format)
    assert number & policy_format.always == policy_format.always
    assert set(describe_policy(number, policy_format)) == set(names) - {f"{policy_format.version}-0.0"}


@pytest.mark.parametrize(
    ("number", "names"),
    [
        (0x33, ["no-debug", "no-key-sharing", "domain", "sev"]),
        (0x37, ["no-debug", "no-key-sharing", "es", "domain", "sev"]),
        (0x01, ["no-debug"]),
        (0x02, ["no-key-sharing"]),
        (0x04, ["es"]),
        (0x08, ["no-send"]),
        (0x10, ["domain"]),
        (0x20, ["sev"]),
        (0, []),
        # The API's major version is the lower byte of the two.
        (0x3301_0033, ["no-debug", "no-key-sharing", "domain", "sev", "api-1.51"]),
    ],
)
def test_known_policies_of_sev(number: int, names: list[str]) -> None:
    assert describe_policy(number, SEV_POLICY) == names
    assert parse_policy(names, SEV_POLICY) == number


@pytest.mark.parametrize(
    ("number", "names"),
    [
        (0x20000, []),
        (0x30000, ["smt"]),
        (0x60000, ["migration-agent"]),
        (0xA0000, ["debug"]),
        (0x120000, ["single-socket"]),
        (0x220000, ["cxl"]),
        (0x420000, ["aes-256-xts"]),
        (0x820000, ["rapl-disabled"]),
        (0x1020000, ["ciphertext-hiding"]),
        (0x2020000, ["page-swap-disabled"]),
        # The ABI's minor version is the lower byte of the two.
        (0x30137, ["smt", "abi-1.55"]),
    ],
)
def test_known_policies_of_snp(number: int, names: list[str]) -> None:
    assert describe_policy(number, SNP_POLICY) == names
    assert parse_policy(names, SNP_POLICY) == number


@pytest.mark.parametrize("bit", [6, 7, 8, 15])
def test_a_reserved_bit_of_sev_is_refused(bit: int) -> None:
    with pytest.raises(ValueError, match=f"sets reserved bit {bit}, which must be 0"):
        parse_policy(1 << bit, SEV_POLICY)


@pytest.mark.parametrize("bit", [26, 27, 40, 63])
def test_a_reserved_bit_of_snp_is_refused(bit: int) -> None:
    with pytest.raises(ValueError, match=f"sets reserved bit {bit}, which must be 0"):
        parse_policy(0x20000 | 1 << bit, SNP_POLICY)


def test_several_reserved_bits_are_all_named() -> None:
    with pytest.raises(ValueError, match="sets reserved bit 6, 8, which must be 0"):
        parse_policy(0x173, SEV_POLICY)


@pytest.mark.parametrize("number", [0, 0x10000, "0x10000"])
def test_a_number_without_the_bit_that_must_be_one_is_refused(number: int | str) -> None:
    with pytest.raises(ValueError, match=r"lacks bit 17, which must be 1: use 0x[23]0000"):
        parse_policy(number, SNP_POLICY)


@pytest.mark.parametrize(
    ("number", "policy_format"), [(-1, SEV_POLICY), (1 << 32, SEV_POLICY), (1 << 64, SNP_POLICY), (-1, SNP_POLICY)]
)
def test_a_number_out_of_range_is_refused(number: int, policy_format: PolicyFormat) -> None:
    with pytest.raises(ValueError, match=f"wanted a {policy_format.width}-bit policy, found -?0x"):
        parse_policy(number, policy_format)


@pytest.mark.parametrize(
    ("value", "policy_format", "message"),
    [
        (["no-dbug"], SEV_POLICY, "unknown SEV policy bit 'no-dbug'; did you mean 'no-debug'?"),
        ("sev,no-keysharing", SEV_POLICY, "unknown SEV policy bit 'no-keysharing'; did you mean 'no-key-sharing'?"),
        (["smtp"], SNP_POLICY, "unknown SEV-SNP policy bit 'smtp'; did you mean 'smt'?"),
        (["qqqq"], SEV_POLICY, "unknown SEV policy bit 'qqqq'; known: no-debug, no-key-sharing, es,"),
        (["smt"], SEV_POLICY, "unknown SEV policy bit 'smt'"),
        (["sev"], SNP_POLICY, "unknown SEV-SNP policy bit 'sev'"),
        (["abi-1.51"], SEV_POLICY, "unknown SEV policy bit 'abi-1.51'"),
        (["api-256.0"], SEV_POLICY, "unknown SEV policy bit 'api-256.0'"),
        (["api-1"], SEV_POLICY, "unknown SEV policy bit 'api-1'"),
        ([5], SEV_POLICY, "unknown SEV policy bit 5"),
        ([["sev"]], SEV_POLICY, "unknown SEV policy bit ['sev']"),
        (True, SEV_POLICY, "wanted a number such as 0x33 or names of policy bits, found True"),
        (None, SEV_POLICY, "wanted a number such as 0x33 or names of policy bits, found None"),
        (1.5, SEV_POLICY, "wanted a number such as 0x33 or names of policy bits, found 1.5"),
        ({}, SEV_POLICY, "wanted a number such as 0x33 or names of policy bits, found {}"),
    ],
)
def test_what_is_no_policy_is_refused(value: object, policy_format: PolicyFormat, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_policy(value, policy_format)


def test_without_a_policy_the_default_of_the_type_counts() -> None:
    for guest_type, policy in (("sev", 0x33), ("sev-es", 0x37), ("sev-snp", 0x30000)):
        security = loads(f"security: {guest_type}\n").profile.security
        assert isinstance(security, SevSecurity | SnpSecurity)
        assert security.policy is None
        assert security.effective_policy == policy


@pytest.mark.parametrize("policy_format", FORMATS, ids=lambda found: found.title)
def test_every_bit_has_a_meaning(policy_format: PolicyFormat) -> None:
    assert set(policy_format.bits) == set(policy_format.meanings)


@pytest.mark.parametrize(
    ("number", "named"),
    [
        (0x33, []),
        (0x37, []),
        (0x03, ["no-send"]),
        (0x0B, []),
        (0x01, ["no-key-sharing", "no-send"]),
        (0x32, ["no-debug"]),
        (0x31, ["no-key-sharing"]),
        (0x00, ["no-debug", "no-key-sharing", "no-send"]),
    ],
)
def test_what_a_sev_policy_lets_the_host_do_is_named(number: int, named: list[str]) -> None:
    warnings = policy_warnings(number, SEV_POLICY)
    assert [next(name for name in named if name in warning) for warning in warnings] == named


@given(policy=valid_numbers(SNP_POLICY))
def test_what_an_snp_policy_lets_the_host_do_is_named(policy: int) -> None:
    names = [name for name in describe_policy(policy, SNP_POLICY) if name in ("migration-agent", "debug")]
    warnings = policy_warnings(policy, SNP_POLICY)
    assert len(warnings) == len(names)
    assert all(f"has {name} (bit " in warning for name, warning in zip(names, warnings, strict=True))
