"""The launch digest of an SNP guest: AMD 56860 section 8.17, SNP_LAUNCH_UPDATE, table "PAGE_INFO"."""

from __future__ import annotations

import hashlib
import struct
from enum import IntEnum

PAGE = 4096
DIGEST_BYTES = 48
# The VMSAs' own address: -1, page-aligned, without the bits above 51.
VMSA_GPA = 0xFFFFFFFFF000

# DIGEST_CUR, CONTENTS, LENGTH, PAGE_TYPE, IMI_PAGE, permissions of VMPL 3, 2 and 1 and a reserved byte, GPA.
_PAGE_INFO = struct.Struct("<48s48sHBB4xQ")


class PageType(IntEnum):
    """What a page of the launch is."""

    NORMAL = 1
    VMSA = 2
    ZERO = 3
    UNMEASURED = 4
    SECRETS = 5
    CPUID = 6


# The digest covers their contents; of the others it covers that they are there.
MEASURED = (PageType.NORMAL, PageType.VMSA)


def extend(digest: bytes, page_type: PageType, gpa: int, page: bytes = b"") -> bytes:
    """The launch digest, 48 bytes, after one more page.

    :param digest: the digest before; 48 zero bytes in the beginning.
    :param page: its 4096 bytes, for the types in :data:`MEASURED`.
    """
    contents = hashlib.sha384(page).digest() if page_type in MEASURED else bytes(DIGEST_BYTES)
    return extend_by(digest, page_type, gpa, contents)


def extend_by(digest: bytes, page_type: PageType, gpa: int, contents: bytes) -> bytes:
    """As :func:`extend`, with CONTENTS as it is: SHA-384 of the page, or 48 zero bytes where that is not measured."""
    info = _PAGE_INFO.pack(digest, contents, _PAGE_INFO.size, page_type, 0, gpa)
    return hashlib.sha384(info).digest()
