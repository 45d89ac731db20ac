"""The emulated platform: its keys and certificates, made once for each user and kept.

Keys and certificates take longer to import than QEMU to start, and a launch without a session needs none of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sevlaunch.errors import HostError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    from sevlaunch.sevapi.ca_certificate import CaCertificate
    from sevlaunch.sevapi.certificate import Certificate

# What the emulated firmware says of itself: recent, and no released build.
API_MAJOR = 1
API_MINOR = 55
BUILD_ID = 0


class Cpu(NamedTuple):
    """CPUID family, model and stepping."""

    family: int
    model: int
    stepping: int


# An EPYC of the third generation, as reports describe it.
CPU = Cpu(0x19, 0x01, 0x01)

# As since Rome; each takes about a second to make.
_RSA_BITS = 4096

# AMD's own, RSA; the others are on P-384.
_AUTHORITIES = ("ark", "ask")
_OTHERS = ("cek", "oca", "pek", "pdh", "vcek")


class Platform:
    """Private keys: AMD's part of the chain, ARK -> ASK -> CEK and VCEK, and the platform's own, OCA, PEK and PDH.

    :param read: the keys by name, in PEM; called when the first one is needed: a launch without a session needs none.
    """

    def __init__(self, read: Callable[[], Mapping[str, str]]) -> None:
        self._read = read

    @classmethod
    def generate(cls) -> Platform:
        """A platform with new keys."""
        from cryptography.hazmat.primitives.asymmetric import ec, rsa

        keys = {name: _to_pem(rsa.generate_private_key(65537, _RSA_BITS)) for name in _AUTHORITIES}
        keys |= {name: _to_pem(ec.generate_private_key(ec.SECP384R1())) for name in _OTHERS}
        return cls(lambda: keys)

    @cached_property
    def _saved(self) -> Mapping[str, str]:
        return self._read()

    @cached_property
    def ark(self) -> rsa.RSAPrivateKey:
        """AMD's root key."""
        return self._authority("ark")

    @cached_property
    def ask(self) -> rsa.RSAPrivateKey:
        """AMD's signing key."""
        return self._authority("ask")

    @cached_property
    def cek(self) -> ec.EllipticCurvePrivateKey:
        """The chip's endorsement key."""
        return self._other("cek")

    @cached_property
    def oca(self) -> ec.EllipticCurvePrivateKey:
        """The platform owner's key."""
        return self._other("oca")

    @cached_property
    def pek(self) -> ec.EllipticCurvePrivateKey:
        """The platform's endorsement key."""
        return self._other("pek")

    @cached_property
    def pdh(self) -> ec.EllipticCurvePrivateKey:
        """The platform's Diffie-Hellman key."""
        return self._other("pdh")

    @cached_property
    def vcek(self) -> ec.EllipticCurvePrivateKey:
        """The chip's versioned endorsement key, which signs SNP reports."""
        return self._other("vcek")

    @property
    def chip_id(self) -> bytes:
        """64 bytes that tell this chip; they begin with a word that tells what it is."""
        number = self.cek.public_key().public_numbers().x
        return b"REHEARSAL".ljust(16, b"\0") + number.to_bytes(48, "big")

    @property
    def pdh_certificate(self) -> Certificate:
        """The PDH, signed by the PEK."""
        from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage

        unsigned = Certificate.of_key(self.pdh.public_key(), Usage.PDH, Algorithm.ECDH_SHA256)
        return unsigned.signed_by((self.pek, Usage.PEK))

    @property
    def chain(self) -> tuple[Certificate, Certificate, Certificate]:
        """PEK (signed by OCA and CEK), OCA (by itself) and CEK (by the ASK), as PDH_CERT_EXPORT gives them."""
        from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage

        pek = Certificate.of_key(self.pek.public_key(), Usage.PEK, Algorithm.ECDSA_SHA256)
        oca = Certificate.of_key(self.oca.public_key(), Usage.OCA, Algorithm.ECDSA_SHA256)
        cek = Certificate.of_key(self.cek.public_key(), Usage.CEK, Algorithm.ECDSA_SHA256)
        return (
            pek.signed_by((self.oca, Usage.OCA), (self.cek, Usage.CEK)),
            oca.signed_by((self.oca, Usage.OCA)),
            cek.signed_by((self.ask, Usage.ASK)),
        )

    @property
    def authorities(self) -> tuple[CaCertificate, CaCertificate]:
        """ASK (signed by the ARK) and ARK (by itself), in the SEV format; their key ids say REHEARSAL."""
        from sevlaunch.sevapi.ca_certificate import ARK_USAGE, ASK_USAGE, KEY_ID_BYTES, CaCertificate

        ark_id, ask_id = (f"REHEARSAL {name}".encode().ljust(KEY_ID_BYTES, b"\0") for name in ("ARK", "ASK"))
        ask = CaCertificate.of_key(self.ask.public_key(), ASK_USAGE, ask_id, ark_id)
        ark = CaCertificate.of_key(self.ark.public_key(), ARK_USAGE, ark_id, ark_id)
        return ask.signed_by(self.ark), ark.signed_by(self.ark)

    @property
    def endorsement(self) -> tuple[bytes, bytes, bytes]:
        """VCEK, ASK and ARK as X.509 certificates in DER."""
        # Only SNP needs X.509.
        from sevlaunch.rehearsal.endorsement import TCB, chain

        return chain(self.ark, self.ask, self.vcek, TCB, self.chip_id)

    def to_json(self) -> bytes:
        """The private keys, for :meth:`from_json`."""
        note = "keys of sevlaunch's emulated processor: they protect nothing"
        return json.dumps({"note": note, **self._saved}).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Platform:
        """The platform that was saved.

        :raise ValueError: when it is none.
        """
        data = json.loads(content)
        names = (*_AUTHORITIES, *_OTHERS)
        if not isinstance(data, dict) or not all(isinstance(data.get(name), str) for name in names):
            raise ValueError("keys are missing")
        keys = {name: data[name] for name in names}
        return cls(lambda: keys)

    def _authority(self, name: str) -> rsa.RSAPrivateKey:
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = _from_pem(self._saved[name])
        if not isinstance(key, rsa.RSAPrivateKey):
            raise _damaged(f"{name} is no RSA key")
        return key

    def _other(self, name: str) -> ec.EllipticCurvePrivateKey:
        from cryptography.hazmat.primitives.asymmetric import ec

        key = _from_pem(self._saved[name])
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise _damaged(f"{name} is no key on an elliptic curve")
        return key


def user_platform(state_folder: Path) -> Platform:
    """This user's platform; its keys are made at the first use.

    A :class:`HostError` of the file, damaged or not to be written, is raised where the first key is needed.
    """
    # No guest's name begins with a dot.
    return Platform(lambda: _kept(state_folder / ".rehearsal" / "platform.json"))


def _kept(file: Path) -> Mapping[str, str]:
    from sevlaunch.atomic import make_private_folder, write_whole

    try:
        if not file.exists():
            make_private_folder(file.parent)
            # Of two that make one at the same time, both use the one that came first.
            write_whole(file, Platform.generate().to_json(), replace=False)
        return Platform.from_json(file.read_bytes())._saved
    except (ValueError, OSError) as error:
        raise _damaged(f"{file}: {error}") from error


def _damaged(what: str) -> HostError:
    return HostError(
        f"the emulated processor's keys can't be read: {what}",
        hint="remove .rehearsal/platform.json in the folder of the guests' state: new keys are made, and sessions for "
        "the old ones are void",
    )


def _from_pem(text: str) -> object:
    from cryptography.hazmat.primitives import serialization

    try:
        return serialization.load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError) as error:
        raise _damaged(str(error)) from error


def _to_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
