"""Tables and metadata of OVMF images that are damaged: an error, and nothing that the image does not hold."""

from __future__ import annotations

import struct

import pytest

from sevlaunch.sevapi.ovmf import (
    SEV_METADATA,
    Section,
    SectionKind,
    es_reset_eip,
    hashes_table_gpa,
    secret_area,
    sev_metadata,
    table_of,
)
from tests.owner.images import AMDSEV_SECTIONS, HASHES_GPA, RESET_EIP, ovmf

IMAGE = ovmf()
# Where the metadata begins, as far from the end as its entry says, and where the footer's length stands.
METADATA, FOOTER = len(IMAGE) - 1024, len(IMAGE) - 32 - 18


def changed(at: int, content: bytes, image: bytes = IMAGE) -> bytes:
    """The image with other bytes somewhere."""
    return image[:at] + content + image[at + len(content) :]


def test_an_image_says_what_it_was_made_with() -> None:
    assert (es_reset_eip(IMAGE), hashes_table_gpa(IMAGE)) == (RESET_EIP, HASHES_GPA)
    assert secret_area(IMAGE) == (0x810000, 0xC00)
    assert sev_metadata(IMAGE) == AMDSEV_SECTIONS


@pytest.mark.parametrize("image", [b"", IMAGE[-32:], bytes(4096), changed(FOOTER + 2, bytes(16))])
def test_an_image_without_a_table_says_nothing(image: bytes) -> None:
    assert table_of(image) == {}
    assert (es_reset_eip(image), hashes_table_gpa(image), secret_area(image)) == (0, 0, None)
    assert sev_metadata(image) == ()


@pytest.mark.parametrize("length", [0, 17, 0xFFFF])
def test_an_entry_that_is_no_part_of_the_table_is_an_error(length: int) -> None:
    # The entry before the footer.
    image = changed(FOOTER - 18, struct.pack("<H", length))
    for read in (table_of, es_reset_eip, secret_area, hashes_table_gpa, sev_metadata):
        with pytest.raises(ValueError, match=f"an entry of OVMF's table has length {length}"):
            read(image)


@pytest.mark.parametrize("distance", [0, 15, len(IMAGE) + 1, 0xFFFFFFFF])
def test_metadata_outside_the_image_is_an_error(distance: int) -> None:
    at = IMAGE.index(struct.pack("<IH", 1024, 22) + SEV_METADATA.bytes_le)
    with pytest.raises(ValueError, match="outside the image"):
        sev_metadata(changed(at, struct.pack("<I", distance)))


@pytest.mark.parametrize(
    ("at", "content"),
    [
        (0, b"ASEW"),
        (8, struct.pack("<I", 2)),
        (12, struct.pack("<I", 257)),
        # More sections than there are bytes until the end.
        (12, struct.pack("<I", 100)),
    ],
)
def test_metadata_that_is_none_is_an_error(at: int, content: bytes) -> None:
    with pytest.raises(ValueError, match="damaged, or of another version"):
        sev_metadata(changed(METADATA + at, content))


@pytest.mark.parametrize(
    "section",
    [(0x1001, 0x1000, 1), (0x1000, 0x1001, 1), (0x1000, 0x10001000, 1), (0x1000, 0x1000, 5), (0x1000, 0x1000, 0)],
)
def test_a_section_that_is_no_page_range_is_an_error(section: tuple[int, int, int]) -> None:
    last = METADATA + 16 + 12 * (len(AMDSEV_SECTIONS) - 1)
    with pytest.raises(ValueError, match=f"a section of kind {section[2]} with {section[1]:#x} bytes"):
        sev_metadata(changed(last, struct.pack("<III", *section)))
    largest = Section(0x1000, 0x10000000, SectionKind.SNP_SEC_MEM)
    assert sev_metadata(changed(last, struct.pack("<III", *largest)))[-1] == largest


def test_an_area_that_is_none_is_left_out() -> None:
    for area in ((0, 0xC00), (0x810000, 0)):
        assert secret_area(ovmf(secret_area=area)) is None
