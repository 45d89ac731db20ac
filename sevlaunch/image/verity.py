"""Making the hash tree of an image by cryptsetup's veritysetup, without root. The same image gives the same tree."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import ImageError
from sevlaunch.host.facts import VerityFacts
from sevlaunch.host.images import image_facts
from sevlaunch.host.verity import opened_disk, verity_facts
from sevlaunch.remedies import INSTALL_VERITYSETUP
from sevlaunch.verity import ALIGNMENT, Content, find_appended

_PROGRAM = "veritysetup"
# It is in a folder that is on no ordinary user's PATH.
_FOLDERS = "/usr/sbin:/sbin"
_PIECE = 1 << 20
_ROOT_HASH = re.compile(rb"^Root hash:\s*([0-9a-f]+)\s*$", re.MULTILINE)


class HashTree(Struct, frozen=True, kw_only=True):
    """A hash tree that was made. ``file``: where it is; ``appended``: the image itself has it. ``uuid``: the tree's."""

    image: Path
    file: Path
    appended: bool
    uuid: str
    facts: VerityFacts


def make_hash_tree(
    image: Path, *, output: Path | None = None, append: bool = False, salt: str = "", identity: str = ""
) -> HashTree:
    """Make the hash tree of a raw or qcow2 image, in SHA-256 and blocks of 4 KiB.

    :param output: where it goes; default: beside the image, with ``.verity`` behind its name.
    :param append: put it behind the data of a raw image instead.
    :param salt: hexadecimal; default: the SHA-256 of the image's content.
    :param identity: the tree's UUID; default: one that follows from the salt.
    :raise ImageError: when the image can't be read or has a tree, ``output`` is there already, or veritysetup fails.
    """
    program = shutil.which(_PROGRAM, path=f"{os.environ.get('PATH', '')}:{_FOLDERS}")
    if program is None:
        raise ImageError(f"{_PROGRAM} is missing, which makes hash trees", hint=INSTALL_VERITYSETUP)
    target = image if append else output or image.with_name(f"{image.name}.verity")
    if not append and os.path.lexists(target):
        raise ImageError(f"{target} exists already", hint="name another file with --output, or remove this one")
    try:
        with opened_disk(str(image.absolute())) as content, tempfile.TemporaryDirectory(dir=target.parent) as folder:
            _check_image(image, content, append=append)
            salt = salt or _content_hash(content)
            identity = identity or str(uuid.uuid5(uuid.NAMESPACE_OID, salt))
            tree = Path(folder) / "tree"
            root_hash = _format(program, _as_raw(image, content, Path(folder)), tree, salt, identity)
            if append:
                _append(image, tree)
            else:
                tree.rename(target)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"no hash tree can be made of {image}: {reason}", hint="is it another file?") from error
    facts = verity_facts(str(image.absolute()), None if append else str(target.absolute()))
    if facts.root_hash != root_hash:
        found = facts.problem or facts.root_hash
        raise ImageError(f"{_PROGRAM} says that the root hash is {root_hash}, and the tree in {target} gives: {found}")
    return HashTree(image=image, file=target, appended=append, uuid=identity, facts=facts)


def _check_image(image: Path, content: Content, *, append: bool) -> None:
    """See that all of the image is in whole blocks, and that no tree would be of a tree."""
    if append and _is_other_than_raw(image):
        raise ImageError(
            f"{image} is a qcow2 image, behind whose data nothing can be put",
            hint="leave --append out, or make it raw: qemu-img convert -O raw IMAGE FILE",
        )
    if content.size % ALIGNMENT or not content.size:
        raise ImageError(
            f"{image} has {content.size} bytes, of which a hash tree would leave out the last",
            hint=f"fill its last block: truncate -s %{ALIGNMENT} {image}",
        )
    with suppress(ValueError):
        offset = find_appended(content)
        raise ImageError(f"{image} has a hash tree already", hint=f"cut it off: truncate -s {offset} {image}")


def _is_other_than_raw(image: Path) -> bool:
    facts = image_facts(str(image))
    return facts is None or facts.format != "raw" or facts.block_device


def _content_hash(content: Content) -> str:
    digest = hashlib.sha256()
    for offset in range(0, content.size, _PIECE):
        digest.update(content.read(offset, _PIECE))
    return digest.hexdigest()


def _as_raw(image: Path, content: Content, folder: Path) -> Path:
    """The image, or what a guest sees of it, as veritysetup reads it."""
    if not _is_other_than_raw(image):
        return image
    raw = folder / "raw"
    with raw.open("wb") as file:
        for offset in range(0, content.size, _PIECE):
            piece = content.read(offset, _PIECE)
            # Zeros take no place.
            if piece.strip(b"\0"):
                file.seek(offset)
                file.write(piece)
        file.truncate(content.size)
    return raw


def _format(program: str, data: Path, tree: Path, salt: str, identity: str) -> str:
    """Run veritysetup; the root hash that it says."""
    size = str(ALIGNMENT)
    sizes = ("--data-block-size", size, "--hash-block-size", size, "--hash", "sha256")
    words = (program, "format", *sizes, "--salt", salt, "--uuid", identity, "--", str(data), str(tree))
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=environment, check=False)
    said = _ROOT_HASH.search(done.stdout)
    if done.returncode or not said:
        complaint = done.stderr.decode(errors="replace").strip() or f"it ended with exit code {done.returncode}"
        raise ImageError(f"{_PROGRAM} made no hash tree of {data}: {complaint}")
    return said[1].decode()


def _append(image: Path, tree: Path) -> None:
    """Put the tree behind the data, or leave the image as it was."""
    size = image.stat().st_size
    try:
        with tree.open("rb") as source, image.open("ab") as file:
            shutil.copyfileobj(source, file, _PIECE)
    except BaseException:
        os.truncate(image, size)
        raise
