"""The owner's launch session: keys that only the owner and the platform's secure processor know."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from sevlaunch.errors import UsageError
from sevlaunch.files import NewFile, write_new
from sevlaunch.owner import platform
from sevlaunch.owner.platform import PlatformNote
from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage
from sevlaunch.sevapi.session import KEY_BYTES, TransportKeys, agree, wrap
from sevlaunch.sevapi.status import FirmwareError

_NONCE_BYTES = 16


@dataclass(frozen=True, repr=False)
class LaunchSession:
    """What a launch is started with: ``godh`` (2084 bytes) and ``blob`` (128) for the host, ``keys`` for the owner."""

    godh: Certificate
    blob: bytes
    keys: TransportKeys


def make_session(pdh: Certificate, policy: int) -> LaunchSession:
    """A session with new keys for the platform of ``pdh`` and a guest of ``policy``: AMD 55766, LAUNCH_START.

    :raise UsageError: when the PDH's key is none.
    """
    try:
        platform = pdh.public_key
    except FirmwareError as error:
        raise UsageError("PDH: its key is no point of P-384", hint="export the certificate again") from error
    owner = ec.generate_private_key(ec.SECP384R1())
    keys = TransportKeys(tek=secrets.token_bytes(KEY_BYTES), tik=secrets.token_bytes(KEY_BYTES))
    nonce, iv = secrets.token_bytes(_NONCE_BYTES), secrets.token_bytes(_NONCE_BYTES)
    blob = wrap(keys, policy, agree(owner, platform), nonce, iv)
    return LaunchSession(Certificate.of_key(owner.public_key(), Usage.PDH, Algorithm.ECDH_SHA256), blob, keys)


def write_session(session: LaunchSession, prefix: str, *, root: str | None) -> dict[str, Path]:
    """Write PREFIX_godh.b64 and PREFIX_session.b64 for the host, PREFIX_tik.bin and PREFIX_tek.bin (0600) to keep.

    Beside the keys PREFIX_platform.json (0600) notes who vouched for the platform. All of the files or none; their
    paths by ``godh``, ``session``, ``tik``, ``tek`` and ``platform``.

    :param root: the fingerprint of the root that did, :attr:`ChainVerdict.root`; None: nobody.
    :raise UsageError: when one exists already, or can't be written.
    """
    note = PlatformNote(root=root).sealed(session.keys.tik)
    files = {
        "godh": NewFile(Path(f"{prefix}_godh.b64"), base64.b64encode(session.godh.to_bytes()) + b"\n"),
        "session": NewFile(Path(f"{prefix}_session.b64"), base64.b64encode(session.blob) + b"\n"),
        "tik": NewFile(Path(f"{prefix}_tik.bin"), session.keys.tik, secret=True),
        "tek": NewFile(Path(f"{prefix}_tek.bin"), session.keys.tek, secret=True),
        "platform": NewFile(Path(f"{prefix}_{platform.FILE_NAME}"), note.to_bytes(), secret=True),
    }
    write_new(list(files.values()))
    return {name: file.path for name, file in files.items()}
