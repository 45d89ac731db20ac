"""ID blocks: the owner signs what a guest has to be, and the secure processor launches nothing else."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.files import NewFile, read_bounded, require_private, write_new
from sevlaunch.sevapi.id_block import IdAuthentication, IdBlock, key_digest

# An anonymous block takes no keys, and does not wait for what reads them.
if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec

_MAX_KEY_BYTES = 16 << 10


class SignedIdBlock(Struct, frozen=True):
    """An ID block with its authentication, and what reports will show of the keys (SHA-384, 48 bytes).

    ``author_key_digest`` is empty where there is no author key.
    """

    block: IdBlock
    authentication: IdAuthentication
    id_key_digest: bytes
    author_key_digest: bytes


def read_private_key(file: Path, what: str) -> ec.EllipticCurvePrivateKey:
    """A private key on P-384, in PEM or DER, without a passphrase, that nobody else may read.

    :raise UsageError: when it is none, or others may read it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    content = read_bounded(file, what, _MAX_KEY_BYTES)
    require_private(file, what)
    load = (
        serialization.load_pem_private_key if content.startswith(b"-----BEGIN") else serialization.load_der_private_key
    )
    hint = "make one: openssl ecparam -name secp384r1 -genkey -noout -out KEY.pem"
    try:
        key = load(content, None)
    except TypeError as error:
        raise UsageError(f"{what}: {file} has a passphrase", hint="openssl pkey -in FILE -out KEY.pem") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        # The error may quote the file, which holds a secret.
        raise UsageError(f"{what}: {file} is no private key in PEM or DER", hint=hint) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise UsageError(f"{what}: the key in {file} is not on P-384", hint=hint)
    return key


def sign_id_block(
    block: IdBlock, id_key: ec.EllipticCurvePrivateKey, author_key: ec.EllipticCurvePrivateKey | None
) -> SignedIdBlock:
    """``block`` signed by the ID key, and that by the author's where there is one."""
    return _signed(block, IdAuthentication.make(block, id_key, author_key))


def anonymous_id_block(digest: bytes, policy: int) -> SignedIdBlock:
    """The block of a launch that nobody signs: whoever knows digest and policy makes the same one.

    :param digest: of the launch, 48 bytes.
    """
    block = IdBlock.anonymous(digest, policy)
    return _signed(block, IdAuthentication.anonymous(block))


def signed_block(block: bytes, authentication: bytes) -> SignedIdBlock:
    """The block in 96 bytes with its authentication in 4096.

    :raise ValueError: when there are not as many.
    """
    return _signed(IdBlock.from_bytes(block), IdAuthentication.from_bytes(authentication))


def _signed(block: IdBlock, authentication: IdAuthentication) -> SignedIdBlock:
    author = key_digest(authentication.author_key) if authentication.author_key_algorithm else b""
    return SignedIdBlock(block, authentication, key_digest(authentication.id_key), author)


def write_id_block(signed: SignedIdBlock, prefix: str) -> dict[str, Path]:
    """Write PREFIX_id_block.b64 and PREFIX_id_auth.b64, for the profile's ``id_block`` and ``id_auth``; both or none.

    :raise UsageError: when one exists already, or can't be written.
    """
    files = {
        name: NewFile(Path(f"{prefix}_{name}.b64"), base64.b64encode(content) + b"\n")
        for name, content in (("id_block", signed.block.to_bytes()), ("id_auth", signed.authentication.to_bytes()))
    }
    write_new(list(files.values()))
    return {name: file.path for name, file in files.items()}
