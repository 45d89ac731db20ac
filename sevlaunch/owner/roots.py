"""AMD's root keys (ARK), by fingerprint. The SEV format and X.509 certificates of a generation hold the same key."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sevlaunch.owner.checks import Check

# SHA-256 of the DER SubjectPublicKeyInfo of each ARK. Positions: AMD's ask_ark_naples.cert and ask_ark_rome.cert
# (developer.amd.com/sev); for the others both ask_ark_GENERATION.cert and AMD's key distribution service,
# https://kdsintf.amd.com/vcek/v1/GENERATION/cert_chain, which give the same key.
AMD_ROOTS = {
    "3a04f8f1347de206c9206a81148ba4ef0a233b245d43a15dd82de043bb3e4f69": "Naples",
    "7447ffa21e2b938bfade89f5e9066c00a328813bfc43685605cceabd18da6fde": "Rome",
    "9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9": "Milan",
    "429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831": "Genoa",
    "4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08": "Turin",
}


def fingerprint(key: rsa.RSAPublicKey) -> str:
    """SHA-256 of the key's DER SubjectPublicKeyInfo, in hexadecimal."""
    encoded = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(encoded).hexdigest()


def check_root(found: str, *, trusted: str | None, rehearsal: bool = False) -> Check:
    """Whether a chain ends where it should.

    :param found: the fingerprint of the chain's root.
    :param trusted: the fingerprint of the only root to trust instead of AMD's.
    :param rehearsal: take any root, as that of an emulated processor.
    """
    name = "root"
    if trusted is not None:
        if found == trusted:
            return Check(name, True, f"the root that was given: {found}")
        return Check(name, False, f"wanted the root that was given, {trusted}; found {found}")
    generation = AMD_ROOTS.get(found)
    if generation is not None:
        return Check(name, True, f"AMD's root key for {generation}")
    if rehearsal:
        return Check(name, True, f"REHEARSAL or unknown root, which proves nothing: {found}")
    return Check(name, False, f"REHEARSAL or unknown root: {found}")
