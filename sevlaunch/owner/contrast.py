"""Reference values as Edgeless Systems' Contrast has them in its manifest: internal/manifest/referencevalues.go.

Its validators are go-sev-guest's, whose structures SnpPolicy and SnpPlatformInfo (abi/abi.go) these are.
"""

from __future__ import annotations

from typing import Any

from sevlaunch.errors import UsageError
from sevlaunch.owner.reference_values import ReferenceValues
from sevlaunch.owner.report_wanted import show_policy
from sevlaunch.profile.policy import SNP_POLICY
from sevlaunch.sevapi.report import CHIP_ID_BYTES, Tcb

_CONTRAST = "Contrast"
# The names of policy bits, and of platform bits, there and here.
_POLICY = {
    "SMT": "smt",
    "MigrateMA": "migration-agent",
    "Debug": "debug",
    "SingleSocket": "single-socket",
    "CXLAllowed": "cxl",
    "MemAES256XTS": "aes-256-xts",
    "RAPLDis": "rapl-disabled",
    "CipherTextHidingDRAM": "ciphertext-hiding",
    "PageSwapDisable": "page-swap-disabled",
}
_PLATFORM = {
    "SMTEnabled": "smt",
    "TSMEEnabled": "tsme",
    "ECCEnabled": "ecc",
    "RAPLDisabled": "rapl-disabled",
    "CiphertextHidingDRAMEnabled": "ciphertext-hiding-dram",
    "AliasCheckComplete": "alias-check-complete",
    "TIOEnabled": "tio",
}
# "modifying this field is not permitted": Contrast takes SMT alone, and these least minor ABIs.
_MINORS = (0, 31)


def contrast_values(values: ReferenceValues) -> dict[str, Any]:
    """The part ``ReferenceValues`` of a manifest: an entry for each digest.

    The least TCB is compared with the committed and the launch TCB. Host data are the keys of the manifest's Policies.

    :raise UsageError: when something is missing, or Contrast takes no such launch.
    """
    policy = values.only_policy(_CONTRAST)
    values.require_platform(_CONTRAST, "smt")
    if not values.platform.generation:
        raise UsageError(
            "Contrast wants the processor's generation", hint="--generation Milan, or --report FILE, which may say it"
        )
    minor = policy >> SNP_POLICY.minor_shift & 0xFF
    if policy & ~0xFF != SNP_POLICY.always | SNP_POLICY.bits["smt"] or minor not in _MINORS:
        raise UsageError(
            f"Contrast takes the policies 0x30000 and 0x3001f alone, and the launch has {show_policy(policy)}",
            hint="launch it with one of these",
        )
    shared = {
        "ProductName": values.platform.generation,
        "MinimumTCB": _least(values.platform.tcbs),
        "GuestPolicy": {
            "ABIMinor": minor,
            "ABIMajor": policy >> SNP_POLICY.major_shift & 0xFF,
            **{name: bool(policy & SNP_POLICY.bits[bit]) for name, bit in _POLICY.items()},
        },
        "PlatformInfo": {name: values.platform.bits.get(bit, False) for name, bit in _PLATFORM.items()},
        "AllowedChipIDs": [one.ljust(CHIP_ID_BYTES, b"\0").hex() for one in values.platform.chip_ids],
    }
    cpus = {one.digest.hex(): one.vcpus for one in values.launches}
    return {"snp": [{"TrustedMeasurement": digest, **shared, "CPUs": cpus[digest]} for digest in values.digests]}


def _least(tcbs: tuple[Tcb, ...]) -> dict[str, int]:
    least = {
        "BootloaderVersion": min(tcb.boot_loader for tcb in tcbs),
        "TEEVersion": min(tcb.tee for tcb in tcbs),
        "SNPVersion": min(tcb.snp for tcb in tcbs),
        "MicrocodeVersion": min(tcb.microcode for tcb in tcbs),
    }
    fmc = [tcb.fmc for tcb in tcbs if tcb.fmc is not None]
    return {**least, "FMCVersion": min(fmc)} if fmc else least
