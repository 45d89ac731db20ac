"""The commands image fetch, image ls, image rm, image verity."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sevlaunch.cli.complete import cached_images, catalogue_names
from sevlaunch.cli.failures import SeveralErrors
from sevlaunch.cli.fetching import sentence, shown
from sevlaunch.cli.output import Format, FormatOption, print_json, progress, say, table
from sevlaunch.errors import SevlaunchError, UsageError
from sevlaunch.units import mebibytes

if TYPE_CHECKING:
    from sevlaunch.image.store import Kept

CatalogueOption = Annotated[
    Path | None,
    typer.Option("--catalogue", metavar="FILE", help="A catalogue of your own, before sevlaunch's."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    for command in (fetch, ls, rm, verity):
        app.command(command.__name__)(command)


def fetch(
    image: Annotated[
        str,
        typer.Argument(metavar="NAME|URL", help="An image of the catalogue, or a URL.", autocompletion=catalogue_names),
    ],
    sha256: Annotated[str, typer.Option("--sha256", metavar="HEX", help="What it has to be.")] = "",
    checksums: Annotated[
        str, typer.Option("--checksums", metavar="URL", help="Of a URL: its publisher's file of checksums.")
    ] = "",
    signature: Annotated[
        str, typer.Option("--signature", metavar="URL", help="With --checksums: that file's signature.")
    ] = "",
    keyring: Annotated[
        list[Path], typer.Option("--keyring", metavar="FILE", help="The publisher's key: a signature is then required.")
    ] = [],  # noqa: B006 - typer reads the default
    catalogue: CatalogueOption = None,
    mirror: Annotated[
        str,
        typer.Option("--mirror", metavar="URL", help="A server with the publishers' files below their hosts' names."),
    ] = "",
    renew: Annotated[bool, typer.Option("--renew", help="Take a newer one, if its publisher has it.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", help="Seconds without a byte, after which a server has stalled.", min=0.1)
    ] = 30.0,
    output: FormatOption = Format.TEXT,
) -> None:
    """Fetch an image, verify it, and keep it; what is there already is not fetched again.

    SEVLAUNCH_IMAGE_CATALOGUE and SEVLAUNCH_IMAGE_MIRROR stand in for --catalogue and --mirror.
    """
    from sevlaunch.image.fetch import fetch_image
    from sevlaunch.image.proof import FetchOptions

    if signature and not checksums:
        raise UsageError("--signature is that of a file of checksums", hint="add --checksums URL")
    options = FetchOptions(
        checksums=checksums,
        signature=signature,
        keyrings=tuple(keyring),
        catalogue=catalogue,
        mirror=mirror,
        renew=renew,
        stall_limit=timeout,
    )
    with shown(image) as reports:
        fetched = fetch_image(image, sha256, options=options, reports=reports)
    if output is Format.JSON:
        print_json({"entry": fetched.entry, "path": str(fetched.path), "new": fetched.new, **_plain(fetched.record)})
        return
    say(sentence(image, fetched), f"  {fetched.path}")
    if "://" in image:
        say(f"  in a profile: disks: [{{image: {fetched.record.source!r}, sha256: {fetched.record.sha256}}}]")


def ls(
    known: Annotated[bool, typer.Option("--known", help="Those that can be fetched by name, instead.")] = False,
    catalogue: CatalogueOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """List the images in the cache."""
    from sevlaunch.image.catalogue import read_catalogue
    from sevlaunch.image.store import list_images

    if known:
        entries = read_catalogue(catalogue)
        if output is Format.JSON:
            print_json({name: _plain(entry) for name, entry in entries.items()})
            return
        rows = [(name, entry.title, entry.user, entry.boot) for name, entry in entries.items()]
        say(*table(("NAME", "SYSTEM", "USER", "BOOT"), rows))
        return
    found = list_images()
    if output is Format.JSON:
        print_json([_document(kept) for kept in found])
        return
    say(*table(("IMAGE", "STATE", "SIZE", "VERIFIED", "FETCHED", "FROM"), [_row(kept) for kept in found]))


def rm(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="As `image ls` shows them.", autocompletion=cached_images)
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Those as well on which disks of guests stand, which are then lost.")
    ] = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Remove images from the cache, downloads that were cut as well."""
    from sevlaunch.flows.images import check_unused
    from sevlaunch.image.store import remove_image

    removed, errors = [], []
    for image in images:
        try:
            if not force:
                check_unused(image)
            removed.append(remove_image(image))
        except SevlaunchError as error:
            errors.append(error)
    if output is Format.JSON:
        print_json([_document(kept) for kept in removed])
    else:
        say(*(f"{kept.entry}: removed, {mebibytes(kept.size)}" for kept in removed))
    if errors:
        raise SeveralErrors(errors)


def verity(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="A raw or qcow2 image of a file system.")],
    out: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where the tree goes; default: IMAGE.verity.")
    ] = None,
    append: Annotated[bool, typer.Option("--append", help="Put it behind the data of a raw image instead.")] = False,
    salt: Annotated[
        str, typer.Option("--salt", metavar="HEX", help="Default: the SHA-256 of the image's content.")
    ] = "",
    uuid: Annotated[str, typer.Option("--uuid", metavar="UUID", help="The tree's; default: by the salt.")] = "",
    output: FormatOption = Format.TEXT,
) -> None:
    """Make the hash tree of an image for dm-verity, and print its root hash. The same image gives the same tree."""
    from sevlaunch.image.verity import make_hash_tree

    if append and out:
        raise UsageError("--append puts the tree into the image, --output into another file", hint="leave one out")
    for option, text, pattern in (("--salt", salt, _SALT), ("--uuid", uuid, _UUID)):
        if text and not re.fullmatch(pattern, text):
            raise UsageError(f"{option}: wanted {_WANTED[option]}, found {text!r}")
    with progress(f"making the hash tree of {image}"):
        tree = make_hash_tree(image, output=out, append=append, salt=salt.lower(), identity=uuid.lower())
    if output is Format.JSON:
        about = {"image": str(tree.image), "file": str(tree.file), "appended": tree.appended, "uuid": tree.uuid}
        left_out = ("data", "hashes", "problem", "missing")
        facts = {key: value for key, value in _plain(tree.facts).items() if key not in left_out}
        print_json({**about, **facts})
        return
    say(f"{tree.image}: root hash {tree.facts.root_hash}")
    say(f"  hash tree {'appended to' if tree.appended else 'in'} {tree.file}")
    hashes = "" if tree.appended else ", hash: disk1"
    say(f"  in a profile, with the image as disk0: boot: {{verity: {{data: disk0{hashes}}}}}")


_SALT, _UUID = r"([0-9a-fA-F]{2}){1,256}", r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_WANTED = {"--salt": "up to 256 bytes in hexadecimal", "--uuid": "a UUID such as those of uuidgen"}


def _plain(value: Any) -> dict[str, Any]:
    # The list of the commands is shown without it.
    from msgspec import to_builtins

    plain: dict[str, Any] = to_builtins(value)
    return plain


def _document(kept: Kept) -> dict[str, Any]:
    about = {"entry": kept.entry, "path": str(kept.path), "state": kept.state, "size": kept.size}
    return {**(_plain(kept.record) if kept.record else {}), **about}


def _row(kept: Kept) -> tuple[str, ...]:
    record = kept.record
    about = (record.verified, record.fetched, record.source) if record else ("-", "-", "-")
    return (kept.entry, kept.state, mebibytes(kept.size), *about)
