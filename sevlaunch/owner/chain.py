"""A platform's SEV certificates, up to AMD's root: AMD 55766 chapter 2, "Certificates".

::

    PDH <- PEK <- OCA (self-signed)
               <- CEK <- ASK <- ARK (self-signed)

The CEK that a platform exports carries no signature: AMD's key distribution service gives the signed one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.files import read_as
from sevlaunch.owner.checks import Check, Verdict
from sevlaunch.owner.roots import AMD_ROOTS, check_root, fingerprint
from sevlaunch.sevapi import certificate
from sevlaunch.sevapi.ca_certificate import CaCertificate
from sevlaunch.sevapi.certificate import Certificate, Signature, Usage
from sevlaunch.sevapi.constants import CEK_ADDRESS
from sevlaunch.sevapi.status import FirmwareError

AnyCertificate = Certificate | CaCertificate

# A full export has four SEV certificates and two of AMD's; a few more may be given together.
_MAX_BYTES = 32 << 10
_NAMES = {Usage.PDH: "PDH", Usage.PEK: "PEK", Usage.OCA: "OCA", Usage.CEK: "CEK", Usage.ASK: "ASK", Usage.ARK: "ARK"}


class Chain(Struct, frozen=True):
    """The certificates that were given; None for those that were not."""

    pdh: Certificate | None = None
    pek: Certificate | None = None
    oca: Certificate | None = None
    cek: Certificate | None = None
    ask: CaCertificate | None = None
    ark: CaCertificate | None = None

    @classmethod
    def of(cls, certificates: Iterable[AnyCertificate]) -> Chain:
        """The chain of the certificates, in whatever order; the same one may be there twice.

        :raise UsageError: when two are there for one place.
        """
        places: dict[str, AnyCertificate] = {}
        for one in certificates:
            place = _NAMES[Usage(one.usage)].lower()
            other = places.setdefault(place, one)
            if other != one:
                places[place] = _signed_of(other, one)
        return cls(**places)  # type: ignore[arg-type]

    @property
    def is_bare(self) -> bool:
        """Whether there is nothing that says whose PDH this is."""
        return not (self.pek or self.oca or self.cek)


def read_sev_certificates(file: Path, what: str) -> tuple[AnyCertificate, ...]:
    """The certificates in a file: one, or several behind each other, raw, in base64 or in hexadecimal.

    :raise UsageError: when it holds anything else.
    """
    return read_as(file, what, _MAX_BYTES, parse_sev_certificates, wanted="SEV certificates")


def parse_sev_certificates(content: bytes) -> tuple[AnyCertificate, ...]:
    """The certificates that stand behind each other in ``content``.

    :raise ValueError: when it is anything else.
    """
    found: list[AnyCertificate] = []
    while content:
        try:
            authority, content = CaCertificate.take(content)
            found.append(authority)
            continue
        except ValueError:
            part, content = content[: certificate.SIZE], content[certificate.SIZE :]
        try:
            one = Certificate.from_bytes(part)
        except FirmwareError as error:
            raise ValueError(f"certificate {len(found) + 1} is cut short, or no SEV certificate, ASK or ARK") from error
        if one.usage not in (Usage.PDH, Usage.PEK, Usage.OCA, Usage.CEK):
            raise ValueError(f"certificate {len(found) + 1} has usage {one.usage:#x}")
        found.append(one)
    if not found:
        raise ValueError("there is no certificate")
    return tuple(found)


def read_root(file: Path) -> CaCertificate:
    """The ARK in a file, which may hold the ASK, too.

    :raise UsageError: when there is none.
    """
    ark = Chain.of(read_sev_certificates(file, "root")).ark
    if ark is None:
        raise UsageError(f"root: {file} has no ARK", hint="give a self-signed ARK in the SEV format")
    return ark


class ChainVerdict(Verdict, frozen=True):
    """The answer about a chain.

    ``root``: the fingerprint of the ARK up to which every step verifies, whoever's it is; None where one does not.
    """

    root: str | None

    @property
    def is_amds(self) -> bool:
        """Whether AMD vouches for the platform."""
        return self.verified and self.root in AMD_ROOTS


def verify_chain(chain: Chain, *, root: CaCertificate | None = None) -> ChainVerdict:
    """Every step of ``chain``, from the PDH to the root.

    :param root: the only ARK to trust, instead of AMD's; it completes a chain that has none.
    """
    ark = chain.ark or root
    steps = (
        _link("PDH", chain.pdh, ("PEK", chain.pek)),
        _link("PEK", chain.pek, ("OCA", chain.oca), ("CEK", chain.cek)),
        _link("OCA", chain.oca, ("OCA", chain.oca)),
        _cek_link(chain),
        _authority_link("ASK", chain.ask, ark),
        _authority_link("ARK", ark, ark),
    )
    whole = Verdict(steps).verified and ark is not None
    return ChainVerdict((*steps, _root_check(ark, root)), fingerprint(ark.public_key) if ark and whole else None)


def _signed_of(one: AnyCertificate, other: AnyCertificate) -> AnyCertificate:
    """The CEK that AMD signed, of it and the one that the platform exported."""
    if isinstance(one, Certificate) and isinstance(other, Certificate) and one.usage == Usage.CEK:
        signed = [each for each in (one, other) if any(slot != Signature() for slot in each.signatures)]
        if len(signed) == 1 and one.key == other.key:
            return signed[0]
    name = _NAMES[Usage(one.usage)]
    raise UsageError(
        f"two different {name} certificates were given",
        hint="give the certificates of one platform, and one ASK and ARK",
    )


def _link(name: str, subject: Certificate | None, *signers: tuple[str, AnyCertificate | None]) -> Check:
    """Whether ``subject`` has exactly the signatures of ``signers``, and nothing in its empty slots."""
    names = " and ".join("itself" if signer == name else signer for signer, _ in signers)
    if subject is None:
        return Check(name, None, "not given")
    missing = [signer for signer, given in signers if given is None]
    if missing:
        return Check(name, None, f"signed by {names}? {' and '.join(missing)} not given")
    used = [slot for slot in subject.signatures if slot != Signature()]
    for signer, given in signers:
        assert given is not None
        if not any(_holds(subject, slot, given) for slot in used):
            return Check(name, False, f"not signed by this {signer}")
    if len(used) != len(signers):
        return Check(name, False, "has a signature too many")
    return Check(name, True, f"signed by {names}")


def _holds(subject: Certificate, slot: Signature, signer: AnyCertificate) -> bool:
    try:
        return replace(subject, signatures=(slot, Signature())).is_signed_by(signer)
    except (FirmwareError, ValueError):
        # The signer's key is none.
        return False


def _cek_link(chain: Chain) -> Check:
    if chain.cek is not None and chain.cek.signatures == (Signature(), Signature()):
        detail = f"carries no signature, as platforms export it: get the signed one from {CEK_ADDRESS.format(id='ID')}"
        # Who gives AMD's keys wants the proof; without them there is none anyway.
        return Check("CEK", None if chain.ask is None else False, detail)
    return _link("CEK", chain.cek, ("ASK", chain.ask))


def _authority_link(name: str, subject: CaCertificate | None, signer: CaCertificate | None) -> Check:
    by = "itself" if subject is signer else "ARK"
    if subject is None:
        return Check(name, None, "not given")
    if signer is None:
        return Check(name, None, f"signed by {by}? ARK not given")
    if not subject.is_signed_by(signer):
        return Check(name, False, f"not signed by {by}")
    return Check(name, True, f"signed by {by}")


def _root_check(ark: CaCertificate | None, root: CaCertificate | None) -> Check:
    if ark is None:
        return Check("root", None, "no ARK given: nothing says that this is AMD's")
    try:
        return check_root(fingerprint(ark.public_key), trusted=fingerprint(root.public_key) if root else None)
    except ValueError as error:
        return Check("root", False, f"the ARK's key is none: {error}")
