"""What the check of a report lacks, and where that is to be had."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.owner.endorsement import Endorsement, EndorsementChain
from sevlaunch.owner.generations import generation_of, possible_generations
from sevlaunch.owner.key_service import CHAIN, KEY, key_addresses
from sevlaunch.sevapi.report import Report, SigningKey


class Lack(Struct, frozen=True):
    """A certificate that was not given, such as the VCEK, and where it is to be had: an address, or in words."""

    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.name}: {self.where}"


def lacking_key(content: bytes, keys: Sequence[Endorsement], *, generation: str = "") -> tuple[Lack, ...]:
    """The certificate of the key that signs this processor's reports, unless ``keys`` have it.

    :param content: the report, 1184 bytes; none of ``keys`` has signed it.
    :param generation: of the processor, where that is known.
    """
    report = Report.from_bytes(content)
    if report.signing_key == SigningKey.NONE or any(_is_of(report, key) for key in keys):
        return ()
    if report.signing_key == SigningKey.VLEK:
        return (Lack("VLEK", "the host has it, and gives it with an extended report (SNP_GET_EXT_REPORT, auxblob)"),)
    return (Lack("VCEK", _where(content, KEY, generation)),)


def lacking_issuers(content: bytes, chain: EndorsementChain, key: Endorsement) -> tuple[Lack, ...]:
    """The certificates above ``key``, which signed the report in ``content``, that were not given."""
    authority = "ASVK" if key.kind is SigningKey.VLEK else "ASK"
    names = [name for name, one in ((authority, chain.authority), ("ARK", chain.root)) if one is None]
    where = _where(content, CHAIN, key.generation) if names else ""
    return tuple(Lack(name, where) for name in names)


def _is_of(report: Report, key: Endorsement) -> bool:
    """Whether ``key`` is the one that a report like this has to be signed with."""
    if key.kind != report.signing_key or key.tcb.to_bytes() != report.reported_tcb:
        return False
    return key.kind is SigningKey.VLEK or key.hardware_id.ljust(len(report.chip_id), b"\0") == report.chip_id


def _where(content: bytes, name: str, generation: str) -> str:
    report = Report.from_bytes(content)
    candidates = (generation,) if generation and not generation_of(report) else possible_generations(report)
    try:
        return " or ".join(key_addresses(content, generation=one)[name] for one in candidates)
    except UsageError as error:
        return f"{error.message}; {error.hint}"
