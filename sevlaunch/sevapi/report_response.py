"""What the secure processor answers to a guest that asks for a report: AMD 56860 table "MSG_REPORT_RSP".

STATUS (u32), REPORT_SIZE (u32), 24 bytes that are zero, and the report. Linux's SNP_GET_REPORT and SNP_GET_EXT_REPORT
hand it out in 4000 bytes (include/uapi/linux/sev-guest.h, snp_report_resp), the rest of which is zero.
"""

from __future__ import annotations

import struct

from sevlaunch.sevapi.report import REPORT_BYTES

_HEADER = struct.Struct("<II")
HEADER_BYTES = 32
# struct snp_report_resp.
RESPONSE_BYTES = 4000


def is_response(content: bytes) -> bool:
    """Whether ``content`` begins as a response does.

    Where it has its zeros a report has its policy, of which one bit is always set.
    """
    return len(content) >= HEADER_BYTES and not any(content[_HEADER.size : HEADER_BYTES])


def split_response(content: bytes) -> tuple[bytes, bytes]:
    """The report in a response, 1184 bytes, and what stands behind the response's own bytes.

    :raise ValueError: when it says that there is none, or is cut short.
    """
    status, size = _HEADER.unpack_from(content)
    if status:
        raise ValueError(f"the processor refused to make a report: its answer has status {status:#x}")
    if size != REPORT_BYTES:
        raise ValueError(f"the processor's answer has a report of {size} bytes, wanted {REPORT_BYTES}")
    end = HEADER_BYTES + REPORT_BYTES
    report = content[HEADER_BYTES:end]
    if len(report) != REPORT_BYTES:
        raise ValueError(f"the processor's answer ends after {len(report)} of the report's {REPORT_BYTES} bytes")
    # A collector may leave out the zeros that fill the 4000 bytes.
    padding = content[end:RESPONSE_BYTES]
    return (report, content[RESPONSE_BYTES:]) if not any(padding) else (report, content[end:])


def make_response(report: bytes) -> bytes:
    """The 4000 bytes that hand out ``report``."""
    return (_HEADER.pack(0, len(report)).ljust(HEADER_BYTES, b"\0") + report).ljust(RESPONSE_BYTES, b"\0")
