"""Where AMD's key distribution service has what belongs to a report: AMD 57230, "VCEK Certificate and KDS"."""

from __future__ import annotations

from urllib.parse import urlencode

from sevlaunch.errors import UsageError
from sevlaunch.owner.generations import GENERATIONS, SHORT_ID_BYTES, generation_of, has_fmc
from sevlaunch.sevapi.constants import KEY_SERVICE
from sevlaunch.sevapi.report import Report, SigningKey, Tcb

KEY, CHAIN, REVOCATIONS = "vcek.der", "chain.pem", "crl.der"
# The parameters for the parts of the TCB that the key is derived from.
_PARTS = {"fmc": "fmcSPL", "boot_loader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}


def key_addresses(content: bytes, *, generation: str = "", server: str = KEY_SERVICE) -> dict[str, str]:
    """The address of each file that a report of an SNP guest is checked with, by the name of the file.

    The VLEK that may have signed in place of the VCEK is the host's alone to fetch: of it there are chain and list.

    :param content: the report, 1184 bytes.
    :param generation: of the processor, such as Milan; a report tells it since version 3.
    :param server: AMD's, or one that has the same files.
    :raise UsageError: when the report does not tell which files these are.
    """
    try:
        report = Report.from_bytes(content)
    except ValueError as error:
        raise UsageError(f"the report can't be read: {error}", hint="is it another file, or cut short?") from error
    told = generation_of(report)
    if generation and told and generation != told:
        raise UsageError(f"the report is one of {told}, not of {generation}", hint="leave --generation out")
    found = told or generation
    if found not in GENERATIONS:
        known = ", ".join(sorted(GENERATIONS))
        raise UsageError(
            f"wanted the processor's generation: one of {known}"
            + (f"; found {found!r}" if found else f": a report of version {report.version} does not tell it"),
            hint="--generation Milan",
        )
    if report.signing_key not in (SigningKey.VCEK, SigningKey.VLEK):
        raise UsageError("no key has signed the report", hint="the host hides its key from this guest")
    if report.signing_key == SigningKey.VLEK:
        base = f"{server.rstrip('/')}/vlek/v1/{found}"
        return {CHAIN: f"{base}/cert_chain", REVOCATIONS: f"{base}/crl"}
    base = f"{server.rstrip('/')}/vcek/v1/{found}"
    return {KEY: f"{base}/{_identity(report, found)}", CHAIN: f"{base}/cert_chain", REVOCATIONS: f"{base}/crl"}


def _identity(report: Report, generation: str) -> str:
    fmc = has_fmc(generation)
    identity = report.chip_id[:SHORT_ID_BYTES] if fmc else report.chip_id
    if not any(identity):
        raise UsageError(
            "the report does not say which processor made it: its host hides that (MASK_CHIP_ID)",
            hint="ask the host for the certificates, for --certs",
        )
    tcb = Tcb.from_bytes(report.reported_tcb, turin=fmc)
    numbers = {key: f"{value:02}" for part, key in _PARTS.items() if (value := getattr(tcb, part)) is not None}
    return f"{identity.hex()}?{urlencode(numbers)}"
