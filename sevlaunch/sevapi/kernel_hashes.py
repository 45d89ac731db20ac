"""The hashes of a direct boot that QEMU adds to what is measured: target/i386/sev.c, sev_add_kernel_loader_hashes.

Little-endian; each entry and the table itself are GUID, length, data.
"""

from __future__ import annotations

import hashlib
import struct
from uuid import UUID

from msgspec import Struct

TABLE = UUID("9438d606-4f22-4cc9-b479-a793d411fd21")
CMDLINE = UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
INITRD = UUID("44baf731-3a2f-4bd7-9af1-41e29169781d")
KERNEL = UUID("4de79437-abd2-427f-b835-d5b172d2045b")
NO_INITRD = hashlib.sha256().digest()

_HEAD = struct.Struct("<16sH")
_ENTRY = struct.Struct("<16sH32s")
_ALIGNMENT = 16
_PAGE = 4096


def cmdline_hash(cmdline: bytes) -> bytes:
    """The hash of a command line, which ends in NUL; a boot without one has an empty one."""
    return hashlib.sha256(cmdline + b"\0").digest()


class KernelHashes(Struct, frozen=True):
    """SHA-256 of a direct boot's parts, 32 bytes each."""

    kernel: bytes
    initrd: bytes = NO_INITRD
    cmdline: bytes = cmdline_hash(b"")

    def table(self) -> bytes:
        """The table, padded with zeros to a multiple of 16 bytes: what SEV and SEV-ES launches measure."""
        parts = ((CMDLINE, self.cmdline), (INITRD, self.initrd), (KERNEL, self.kernel))
        entries = b"".join(_ENTRY.pack(guid.bytes_le, _ENTRY.size, content) for guid, content in parts)
        table = _HEAD.pack(TABLE.bytes_le, _HEAD.size + len(entries)) + entries
        return table + bytes(-len(table) % _ALIGNMENT)

    def page(self, offset: int) -> bytes:
        """The page of 4096 bytes with the table at ``offset``: what an SNP launch measures.

        :raise ValueError: when it does not fit there.
        """
        page = bytes(offset) + self.table()
        if len(page) > _PAGE:
            raise ValueError(f"the table of kernel hashes does not fit into its page at {offset:#x}")
        return page.ljust(_PAGE, b"\0")
