"""The emulated platform: its keys and certificates, made once for each user and kept."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from sevlaunch.errors import HostError
from sevlaunch.guest.folder import write_whole
from sevlaunch.sevapi.ca_certificate import ARK_USAGE, ASK_USAGE, KEY_ID_BYTES, CaCertificate
from sevlaunch.sevapi.certificate import Algorithm, Certificate, Usage
from sevlaunch.sevapi.report import Tcb

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
TCB = Tcb(boot_loader=4, tee=0, snp=24, microcode=219)

# As on Naples; larger keys take a second each to make.
_RSA_BITS = 2048
_ARK_ID, _ASK_ID = (f"REHEARSAL {name}".encode().ljust(KEY_ID_BYTES, b"\0") for name in ("ARK", "ASK"))

# The fields of Platform that are RSA keys.
_AUTHORITIES = ("ark", "ask")

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, repr=False)
class Platform:
    """Private keys: AMD's part of the chain, ARK -> ASK -> CEK and VCEK, and the platform's own, OCA, PEK and PDH.

    AMD's own are RSA, the others on P-384.
    """

    ark: rsa.RSAPrivateKey
    ask: rsa.RSAPrivateKey
    cek: ec.EllipticCurvePrivateKey
    oca: ec.EllipticCurvePrivateKey
    pek: ec.EllipticCurvePrivateKey
    pdh: ec.EllipticCurvePrivateKey
    vcek: ec.EllipticCurvePrivateKey

    @classmethod
    def generate(cls) -> Platform:
        """A platform with new keys."""
        ark, ask = (rsa.generate_private_key(65537, _RSA_BITS) for _ in _AUTHORITIES)
        others = (ec.generate_private_key(ec.SECP384R1()) for _ in fields(cls)[len(_AUTHORITIES) :])
        return cls(ark, ask, *others)

    @property
    def chip_id(self) -> bytes:
        """64 bytes that tell this chip; they begin with a word that tells what it is."""
        number = self.cek.public_key().public_numbers().x
        return b"REHEARSAL".ljust(16, b"\0") + number.to_bytes(48, "big")

    @property
    def pdh_certificate(self) -> Certificate:
        """The PDH, signed by the PEK."""
        unsigned = Certificate.of_key(self.pdh.public_key(), Usage.PDH, Algorithm.ECDH_SHA256)
        return unsigned.signed_by((self.pek, Usage.PEK))

    @property
    def chain(self) -> tuple[Certificate, Certificate, Certificate]:
        """PEK (signed by OCA and CEK), OCA (by itself) and CEK (by the ASK), as PDH_CERT_EXPORT gives them."""
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
        ask = CaCertificate.of_key(self.ask.public_key(), ASK_USAGE, _ASK_ID, _ARK_ID)
        ark = CaCertificate.of_key(self.ark.public_key(), ARK_USAGE, _ARK_ID, _ARK_ID)
        return ask.signed_by(self.ark), ark.signed_by(self.ark)

    @property
    def endorsement(self) -> tuple[bytes, bytes, bytes]:
        """VCEK, ASK and ARK as X.509 certificates in DER."""
        # Only SNP needs X.509.
        from sevlaunch.rehearsal.endorsement import chain

        return chain(self.ark, self.ask, self.vcek, TCB, self.chip_id)

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
        keys = {
            field.name: serialization.load_pem_private_key(data[field.name].encode(), None) for field in fields(cls)
        }
        authorities = [key for name, key in keys.items() if name in _AUTHORITIES and isinstance(key, rsa.RSAPrivateKey)]
        others = [key for key in keys.values() if isinstance(key, ec.EllipticCurvePrivateKey)]
        if (len(authorities), len(others)) != (len(_AUTHORITIES), len(keys) - len(_AUTHORITIES)):
            raise ValueError("a key is of the wrong kind")
        ark, ask = authorities
        return cls(ark, ask, *others)


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


def _pem(key: PrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
