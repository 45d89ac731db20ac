"""The hash trees of disks: what stands in their superblocks, and whether the data is what they say."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from sevlaunch.contents.volume import Raw
from sevlaunch.errors import HostError, SevlaunchError
from sevlaunch.host.facts import VerityFacts
from sevlaunch.host.images import file_of, image_format
from sevlaunch.opening import open_regular
from sevlaunch.qcow2 import Qcow2
from sevlaunch.verity import Content, Difference, Tree, find_appended

_HEAD_BYTES = 512


@contextmanager
def opened_disk(source: str) -> Iterator[Content]:
    """What the guest sees of a disk: a raw or qcow2 image, or a block device, by its path or entry in the cache.

    :raise OSError: when it can't be opened.
    :raise ValueError: when its image is of another format, or leans on another file.
    """
    with open_regular(file_of(source), but_block_device=True) as file:
        raw = Raw(file)
        name = image_format(raw.read(0, _HEAD_BYTES), raw.read(max(0, raw.size - _HEAD_BYTES), _HEAD_BYTES))
        if name == "raw":
            yield raw
        elif name == "qcow2" and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield Qcow2(file)
        else:
            raise ValueError(f"a {name} image: wanted raw or qcow2")


@contextmanager
def _tree(data: str, hashes: str | None) -> Iterator[Tree]:
    with opened_disk(data) as content:
        if hashes is None:
            yield Tree(content, content, find_appended(content))
        else:
            with opened_disk(hashes) as other:
                yield Tree(content, other, 0)


def verity_facts(data: str, hashes: str | None) -> VerityFacts:
    """The hash tree of the disk ``data``, on the disk ``hashes``; None: appended to the data.

    Its superblock and its top block are read alone: whether the data is what it says, :func:`check_verity` sees.
    """
    try:
        with _tree(data, hashes) as tree:
            superblock = tree.superblock
            return VerityFacts(
                data=data,
                hashes=hashes,
                root_hash=tree.root_hash().hex(),
                algorithm=superblock.algorithm,
                data_block_size=superblock.data_block_size,
                hash_block_size=superblock.hash_block_size,
                data_blocks=superblock.data_blocks,
                salt=superblock.salt.hex(),
                offset=tree.offset,
                start=tree.start,
            )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        missing = isinstance(error, FileNotFoundError)
        return VerityFacts(data=data, hashes=hashes, problem=str(reason), missing=missing)


def check_verity(
    data: str, hashes: str | None, root_hash: str, *, names: tuple[str, str], error: type[SevlaunchError] = HostError
) -> None:
    """See that all data is what the tree and its root say. Takes some seconds for a gigabyte.

    :param names: what data and tree are called, for messages.
    :raise error: when the root is another one, a block is not what the level above it says, or can't be read.
    """
    data_name, hash_name = names
    try:
        with _tree(data, hashes) as tree:
            found = tree.root_hash().hex()
            if found != root_hash:
                raise error(
                    f"the hash tree on {hash_name} has the root hash {found}, wanted {root_hash}",
                    hint=f"the tree was changed, or is another one: sevlaunch image verity {data}",
                )
            tree.check()
    except Difference as difference:
        if difference.level < 0:
            what = f"{data_name} was changed: block {difference.block} is not what the hash tree on {hash_name} says"
        else:
            place = f"block {difference.block} of its level {difference.level}"
            what = f"the hash tree on {hash_name} was changed: {place} is not what the level above it says"
        raise error(
            what,
            hint=f"take the image that the tree was made of, or make a tree anew: sevlaunch image verity {data}",
        ) from difference
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise error(f"can't check {data_name} against its hash tree: {reason}", hint="correct boot.verity") from problem
