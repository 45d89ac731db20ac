"""Reference values as CoRIM: the profile for launch measurements of microsoft/igvm (igvm/src/corim/launch_measurement).

The document is that of draft-ietf-rats-corim, in CBOR's deterministic encoding and not signed: one CoMID with the
launch's digest, and the security version number that its publisher gives it.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from sevlaunch.errors import UsageError
from sevlaunch.owner.reference_values import ReferenceValues

PROFILE = "tag:microsoft.com,2026:launch-measurement/v1"
_NAMESPACE = UUID("85f3f1c2-22a8-441e-a1b9-bccfb63ed5f7")
_VENDOR, _MODEL = "AMD", "SEV-SNP"
_MEASUREMENT = "MEASUREMENT"
# IANA's registry "Named Information Hash Algorithm".
_SHA384 = 7
# CBOR tags of the draft: an unsigned CoRIM, a CoMID, an exact SVN; and RFC 8949's for a URI and a time.
_TAG_CORIM, _TAG_COMID, _TAG_SVN = 501, 506, 552
_TAG_URI, _TAG_TIME = 32, 1


def corim_document(values: ReferenceValues, svn: int, *, expires: bool = False) -> bytes:
    """The document.

    :param svn: the security version number of this launch.
    :param expires: say until when it holds (rim-validity).
    :raise UsageError: when there is more than one launch: the profile has one.
    """
    # Few owners publish such documents.
    import cbor2

    if len(values.digests) != 1:
        raise UsageError(
            f"a CoRIM of this profile has one launch, and these are {len(values.digests)}", hint="make one for each"
        )
    environment = {0: {1: _VENDOR, 2: _MODEL}}
    measured = {0: _MEASUREMENT, 1: {2: [[_SHA384, bytes.fromhex(values.digests[0])]]}}
    endorsed = {1: {1: cbor2.CBORTag(_TAG_SVN, svn)}}
    comid = {
        1: {0: str(uuid5(_NAMESPACE, f"{_VENDOR}/{_MODEL}"))},
        4: {
            0: [[environment, [measured]]],
            8: [[[environment, []], [[[measured], [endorsed]]]]],
        },
    }
    document: dict[int, Any] = {
        0: f"{_VENDOR}/{_MODEL}/launch-measurement",
        1: [cbor2.CBORTag(_TAG_COMID, cbor2.dumps(comid, canonical=True))],
        3: cbor2.CBORTag(_TAG_URI, PROFILE),
    }
    if expires:
        document[4] = {1: cbor2.CBORTag(_TAG_TIME, int(values.expires.timestamp()))}
    return cbor2.dumps(cbor2.CBORTag(_TAG_CORIM, document), canonical=True)
