"""The init-data of a profile, and the disk by which the guest gets it."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

from sevlaunch.errors import UsageError
from sevlaunch.files import hash_file
from sevlaunch.image.first_boot import read_seed
from sevlaunch.profile.initdata_values import FILE, MAX_BYTES, SEED, write_initdata
from sevlaunch.profile.model import Profile
from sevlaunch.profile.seed_values import as_hostname

# kata-containers' src/runtime/virtcontainers/hypervisor.go, prepareInitdataImage: magic, length of what follows.
_HEAD = struct.Struct("<8sQ")
MAGIC = b"initdata"
_SECTOR = 512
# RFC 1952: deflate, no flags, no time, no level, an unknown system. Python's own head differs between its versions.
_GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_GZIP_TAIL = struct.Struct("<II")


def initdata_document(profile: Profile) -> bytes:
    """The init-data of a profile that has some: a function of what it says, and of the files that it names.

    :raise UsageError: when a file can't be read, or it is too large.
    :raise HostError: when a file of the seed can't be read.
    """
    said = profile.initdata
    assert said is not None, "the profile has init-data"
    if said.file is not None:
        return said.file
    data = dict(said.data)
    for name, file in said.files.items():
        data[f"{FILE}{name}"] = hash_file(Path(file), f"initdata.files.{name}").hex()
    first = profile.first_boot
    if said.bind and first:
        seed = read_seed(first, guest=profile.name, hostname=first.hostname or as_hostname(profile.name))
        for name, content in seed.documents().items():
            data[f"{SEED}{name}"] = hashlib.sha256(content).hexdigest()
    document = write_initdata(said.algorithm, data)
    if len(document) > MAX_BYTES:
        raise UsageError(
            f"{profile.name}: init-data has at most {MAX_BYTES >> 20} MiB, this has {len(document)} bytes",
            hint="bind a file by its SHA-256 (initdata.files) in place of its content (initdata.data)",
        )
    return document


def initdata_disk(document: bytes) -> bytes:
    """The disk with the document, packed. The same document gives the same bytes."""
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    body = deflate.compress(document) + deflate.flush()
    packed = _GZIP_HEAD + body + _GZIP_TAIL.pack(zlib.crc32(document), len(document))
    content = _HEAD.pack(MAGIC, len(packed)) + packed
    return content + bytes(-len(content) % _SECTOR)
