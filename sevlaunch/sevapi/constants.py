"""What several places know of AMD's formats: sizes, the identifiers in certificates, where certificates are had."""

from __future__ import annotations

# AMD 55766, appendix C: a SEV certificate; table "LAUNCH_START session data buffer".
CERTIFICATE_BYTES = 2084
SESSION_BYTES = 128

# AMD's key distribution service.
KEY_SERVICE = "https://kdsintf.amd.com"
# It gives the CEK with AMD's signature, which the processor's own export lacks.
CEK_ADDRESS = f"{KEY_SERVICE}/cek/id/{{id}}"

# AMD 57230, section "VCEK Certificate Format": the extensions of endorsement keys.
_AMD = "1.3.6.1.4.1.3704.1"
OID_STRUCT_VERSION = f"{_AMD}.1"
OID_PRODUCT_NAME = f"{_AMD}.2"
# The parts of TCB_VERSION, by their names in sevapi.report; fmc since Turin.
OIDS_TCB = {
    "boot_loader": f"{_AMD}.3.1",
    "tee": f"{_AMD}.3.2",
    "snp": f"{_AMD}.3.3",
    "microcode": f"{_AMD}.3.8",
    "fmc": f"{_AMD}.3.9",
}
OID_HARDWARE_ID = f"{_AMD}.4"
OID_CSP_ID = f"{_AMD}.5"
