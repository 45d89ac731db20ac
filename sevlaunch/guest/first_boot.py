"""Making the seed of a guest's first boot: what the profile says, and keys: those there are, or the guest's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sevlaunch.atomic import make_private_folder, write_whole
from sevlaunch.errors import HostError
from sevlaunch.guest.record import Login
from sevlaunch.host.ssh_keys import public_keys
from sevlaunch.image.first_boot import MOST_SOURCE_BYTES, read_seed
from sevlaunch.opening import open_regular
from sevlaunch.plan.first_boot import FirstBootPlan
from sevlaunch.plan.plan import Plan
from sevlaunch.profile.seed_values import goes_with_others

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def made_disks(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """The disks that are made for a guest to read, by the names of their files: its seed, and its init-data.

    :raise HostError: as :func:`make_seed`.
    """
    if plan.first_boot:
        yield plan.first_boot.path.name, make_seed(plan.first_boot)
    if plan.initdata and plan.initdata.document is not None:
        from sevlaunch.image.initdata import initdata_disk

        yield plan.initdata.path.name, initdata_disk(plan.initdata.document)


def make_seed(first_boot: FirstBootPlan) -> bytes:
    """The seed, with the keys that are found now.

    :raise HostError: when a file can't be read, or no key pair can be made.
    """
    wanted = first_boot.said.ssh_keys
    found: Sequence[str] = ()
    if wanted == "auto":
        found = public_keys()
    own = first_boot.own_key
    if wanted == "own" or (wanted == "auto" and (own.exists() or not found)):
        found = [*found, _own_public_key(own, first_boot.guest)]
    seed = read_seed(first_boot.said, guest=first_boot.guest, hostname=first_boot.hostname.value)
    return seed.image(found)


def login_of(plan: Plan) -> Login | None:
    """Who may log in to the guest of ``plan`` by its seed, and the private key of its own if it has one by now.

    None: there is no seed, or one that is the user's own affair altogether.
    """
    first_boot = plan.first_boot
    if first_boot is None:
        return None
    own = first_boot.said.user_data
    if own is not None and not goes_with_others(own):
        return None
    keys = first_boot.said.ssh_keys
    in_use = isinstance(keys, str) and first_boot.own_key.exists()
    user = first_boot.said.user or _user_of(first_boot.entry)
    return Login(user, str(first_boot.own_key) if in_use else None, in_use and keys == "own")


def _user_of(entry: str | None) -> str | None:
    """Whom cloud-init makes in an image of the cache, unless it is told otherwise; None where that is not known."""
    if entry is None:
        return None
    from sevlaunch.image.store import find_image

    kept = find_image(entry)
    return (kept.record.user or None) if kept and kept.record else None


def _own_public_key(private: Path, guest: str) -> str:
    """The public key of the guest's own pair, which is made where it is not there yet."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if not private.exists():
        _make_key(private)
    public = _load(private).public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return f"{public.decode()} sevlaunch {guest}"


def _make_key(private: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    content = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    try:
        make_private_folder(private.parent)
    except OSError as error:
        raise HostError(
            f"can't make the folder {private.parent}: {error.strerror}", hint="make room for it, or set XDG_STATE_HOME"
        ) from error
    # Another start of the guest may have made it in this moment.
    write_whole(private, content, replace=False)


def _load(private: Path) -> Ed25519PrivateKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    hint = f"remove {private}: another one is made, which a guest that was started before does not know"
    try:
        with open_regular(private) as stream:
            key = load_ssh_private_key(stream.read(MOST_SOURCE_BYTES), password=None)
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise HostError(f"can't read the guest's SSH key {private}: {reason}", hint=hint) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise HostError(f"{private} is not the guest's SSH key, which is of type ed25519", hint=hint)
    return key
