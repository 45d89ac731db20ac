"""Where AMD's key distribution service has what belongs to a report: AMD 57230, "VCEK Certificate and KDS"."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from urllib.parse import urlencode

from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.owner.generations import GENERATIONS, SHORT_ID_BYTES, generation_of, has_fmc
from sevlaunch.sevapi.constants import KEY_SERVICE
from sevlaunch.sevapi.report import CHIP_ID_BYTES, Report, SigningKey, Tcb

KEY, CHAIN, REVOCATIONS = "vcek.der", "chain.pem", "crl.der"
# The parameters for the parts of the TCB that the key is derived from.
_PARTS = {"fmc": "fmcSPL", "boot_loader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}
# The same in the names of files that trustee's OfflineStore reads (deps/verifier/src/snp), in its order.
_STORE_PARTS = {"boot_loader": "bl", "tee": "tee", "snp": "snp", "microcode": "ucode", "fmc": "fmc"}


class KeyIdentity(Struct, frozen=True):
    """The key that signs a processor's reports: a VCEK by ``chip_id`` and ``tcb``, or the VLEK of a host."""

    generation: str
    chip_id: bytes = b""
    tcb: Tcb | None = None


def key_of_report(content: bytes, generation: str = "") -> KeyIdentity:
    """The key that has signed a report.

    :param content: the report, 1184 bytes.
    :param generation: of the processor, such as Milan; a report tells it since version 3.
    :raise UsageError: when the report does not tell which key that is.
    """
    try:
        report = Report.from_bytes(content)
    except ValueError as error:
        raise UsageError(f"the report can't be read: {error}", hint="is it another file, or cut short?") from error
    told = generation_of(report)
    if generation and told and generation != told:
        raise UsageError(f"the report is one of {told}, not of {generation}", hint="leave --generation out")
    found = _known(told or generation, f"a report of version {report.version} does not tell it")
    if report.signing_key not in (SigningKey.VCEK, SigningKey.VLEK):
        raise UsageError("no key has signed the report", hint="the host hides its key from this guest")
    if report.signing_key == SigningKey.VLEK:
        return KeyIdentity(found)
    fmc = has_fmc(found)
    chip_id = report.chip_id[:SHORT_ID_BYTES] if fmc else report.chip_id
    if not any(chip_id):
        raise UsageError(
            "the report does not say which processor made it: its host hides that (MASK_CHIP_ID)",
            hint="ask the host for the certificates, for --certs",
        )
    return KeyIdentity(found, chip_id, Tcb.from_bytes(report.reported_tcb, turin=fmc))


def key_of_chip(chip_id: bytes, tcb: Mapping[str, int] | bytes, generation: str) -> KeyIdentity:
    """The VCEK of a processor, without a report of it.

    :param chip_id: 64 bytes, of which 8 count since Turin, as a report has them.
    :param tcb: each part of the TCB, or all of it in 8 bytes.
    :raise UsageError: when one of them does not fit the generation.
    """
    found = _known(generation, "a processor's identity does not tell it")
    fmc = has_fmc(found)
    size = SHORT_ID_BYTES if fmc else CHIP_ID_BYTES
    if fmc and not any(chip_id[size:]):
        chip_id = chip_id[:size]
    if len(chip_id) != size or not any(chip_id):
        raise UsageError(
            f"wanted the identity of a {found}, {size} bytes, found {len(chip_id)}",
            hint="--chip-id HEX, as a report has it",
        )
    if isinstance(tcb, bytes):
        return KeyIdentity(found, chip_id, Tcb.from_bytes(tcb, turin=fmc))
    wanted = [name for name in _PARTS if fmc or name != "fmc"]
    if sorted(tcb) != sorted(wanted):
        raise UsageError(
            f"wanted the whole TCB of a {found} ({', '.join(wanted)}), found {', '.join(tcb)}",
            hint="a key belongs to one TCB: --tcb boot_loader=4,tee=0,snp=24,microcode=219",
        )
    return KeyIdentity(found, chip_id, Tcb(**tcb))


def key_addresses(content: bytes, *, generation: str = "", server: str = KEY_SERVICE) -> dict[str, str]:
    """The address of each file that a report of an SNP guest is checked with, by the name of the file.

    The VLEK that may have signed in place of the VCEK is the host's alone to fetch: of it there are chain and list.

    :param content: as for :func:`key_of_report`, with ``generation``.
    :param server: AMD's, or one that has the same files.
    :raise UsageError: when the report does not tell which files these are.
    """
    return addresses_of(key_of_report(content, generation), server)


def addresses_of(key: KeyIdentity, server: str = KEY_SERVICE) -> dict[str, str]:
    """As :func:`key_addresses`, of a key."""
    root = server.rstrip("/")
    if key.tcb is None:
        base = f"{root}/vlek/v1/{key.generation}"
        return {CHAIN: f"{base}/cert_chain", REVOCATIONS: f"{base}/crl"}
    base = f"{root}/vcek/v1/{key.generation}"
    numbers = {name: f"{value:02}" for part, name in _PARTS.items() if (value := getattr(key.tcb, part)) is not None}
    own = f"{base}/{key.chip_id.hex()}?{urlencode(numbers)}"
    return {KEY: own, CHAIN: f"{base}/cert_chain", REVOCATIONS: f"{base}/crl"}


def store_path(key: KeyIdentity) -> PurePath:
    """Where a VCEK lies in the folder that trustee's OfflineStore reads, its `kds-store`.

    :raise UsageError: for a VLEK, which is not there.
    """
    if key.tcb is None:
        raise UsageError(
            "a trustee's store has VCEKs, and a VLEK has signed the report", hint="leave --trustee-store out"
        )
    parts = [
        f"{name}{value:02}" for part, name in _STORE_PARTS.items() if (value := getattr(key.tcb, part)) is not None
    ]
    return PurePath("vcek", key.chip_id.hex(), f"{'_'.join(parts)}_vcek.der")


def _known(generation: str, why_not: str) -> str:
    if generation not in GENERATIONS:
        known = ", ".join(sorted(GENERATIONS))
        raise UsageError(
            f"wanted the processor's generation: one of {known}"
            + (f"; found {generation!r}" if generation else f": {why_not}"),
            hint="--generation Milan",
        )
    return generation
