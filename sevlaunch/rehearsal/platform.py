"""The emulated platform: its keys and certificates, made once for each user and kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sevlaunch.errors import HostError
from sevlaunch.guest.folder import write_whole
from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage

# What the emulated firmware says of itself: recent, and no released build.
API_MAJOR = 1
API_MINOR = 55
BUILD_ID = 0


@dataclass(frozen=True, repr=False)
class Platform:
    """Private keys of the chain CEK, OCA -> PEK -> PDH, all on P-384."""

    cek: ec.EllipticCurvePrivateKey
    oca: ec.EllipticCurvePrivateKey
    pek: ec.EllipticCurvePrivateKey
    pdh: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> Platform:
        """A platform with new keys."""
        return cls(*(ec.generate_private_key(ec.SECP384R1()) for _ in fields(cls)))

    @property
    def pdh_certificate(self) -> Certificate:
        """The PDH, signed by the PEK."""
        unsigned = Certificate.of_key(self.pdh.public_key(), Usage.PDH, Algorithm.ECDH_SHA256)
        return unsigned.signed_by((self.pek, Usage.PEK))

    @property
    def chain(self) -> tuple[Certificate, Certificate, Certificate]:
        """PEK (signed by OCA and CEK), OCA (by itself) and CEK, as PDH_CERT_EXPORT gives them."""
        pek = Certificate.of_key(self.pek.public_key(), Usage.PEK, Algorithm.ECDSA_SHA256)
        oca = Certificate.of_key(self.oca.public_key(), Usage.OCA, Algorithm.ECDSA_SHA256)
        cek = Certificate.of_key(self.cek.public_key(), Usage.CEK, Algorithm.ECDSA_SHA256)
        return (
            pek.signed_by((self.oca, Usage.OCA), (self.cek, Usage.CEK)),
            oca.signed_by((self.oca, Usage.OCA)),
            cek,
        )

    def to_json(self) -> bytes:
        """The private keys, for :meth:`from_json`."""
        keys = {field.name: _pem(getattr(self, field.name)) for field in fields(self)}
        return json.dumps({"note": "keys of sevlaunch's emulated processor: they protect nothing", **keys}).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Platform:
        """The platform that was saved.

        :raise ValueError: when it is none.
        """
        data = json.loads(content)
        keys = [serialization.load_pem_private_key(data[field.name].encode(), None) for field in fields(cls)]
        if not all(isinstance(key, ec.EllipticCurvePrivateKey) for key in keys):
            raise ValueError("a key is not on an elliptic curve")
        return cls(*(key for key in keys if isinstance(key, ec.EllipticCurvePrivateKey)))


def user_platform(state_folder: Path) -> Platform:
    """This user's platform, made at the first use.

    :raise HostError: when its file is damaged or can't be written.
    """
    # No guest's name begins with a dot.
    file = state_folder / ".rehearsal" / "platform.json"
    try:
        return Platform.from_json(file.read_bytes())
    except FileNotFoundError:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        platform = Platform.generate()
        write_whole(file, platform.to_json())
        return platform
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise HostError(
            f"the emulated processor's keys in {file} can't be read: {error}",
            hint="remove the file: new keys are made, and sessions for the old ones are void",
        ) from error


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
