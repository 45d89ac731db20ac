"""Sizes in bytes."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sevlaunch.profile.loader import loads
from sevlaunch.units import format_ranges, format_size, parse_ranges, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4G", 4 << 30),
        ("4g", 4 << 30),
        ("4GB", 4 << 30),
        ("4GiB", 4 << 30),
        ("512M", 512 << 20),
        ("65536 KiB", 64 << 20),
        ("1T", 1 << 40),
        ("1.5G", 3 << 29),
        ("0.5K", 512),
        ("100", 100),
        ("100B", 100),
        (" 7 K ", 7 << 10),
        ("0", 0),
        (4096, 4096),
        (-1, -1),
    ],
)
def test_a_size_is_read(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value", ["", "G", "4Q", "4 G B", "-4G", "4,5G", "0x10", "4iB", "1e9", True, None, 1.5, [], "4G4"]
)
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=re.escape(f"wanted a size such as 4G, 512M or 65536K, found {value!r}")):
        parse_size(value)


@pytest.mark.parametrize("text", ["0.3K", "1.5", "0.0001M"])
def test_a_part_of_a_byte_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted a whole number of bytes"):
        parse_size(text)


@given(st.integers(0, 1 << 50))
def test_a_size_is_shown_so_that_it_is_read_as_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("size", "text"), [(4 << 30, "4G"), (1536 << 20, "1536M"), (1 << 40, "1T"), (1025, "1025"), (0, "0"), (1024, "1K")]
)
def test_a_size_is_shown_in_the_largest_unit_that_divides_it(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize("text", ["4294967296", "4G", "4194304 KiB", "{size: 4096M}", "0x100000000", "'4GiB'"])
def test_a_profile_takes_every_spelling(text: str) -> None:
    assert loads(f"memory: {text}\n").profile.memory.size == 4 << 30


@pytest.mark.parametrize(
    ("text", "numbers", "written"), [("0-2,8", [0, 1, 2, 8], "0-2,8"), ("8,0-1", [8, 0, 1], "0-1,8"), ("", [], "")]
)
def test_ranges_are_read_and_written(text: str, numbers: list[int], written: str) -> None:
    assert parse_ranges(text) == numbers
    assert format_ranges(numbers) == written


@pytest.mark.parametrize("text", ["3-1", "a", "1,", "1-", "-1", "1 ,2", "123456"])
def test_what_is_no_list_of_numbers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wanted numbers and ranges"):
        parse_ranges(text)
