"""What is sent to a trustee's key broker service (KBS), so that it knows a launch and what it guards.

Paths and bodies are those of kbs/docs/kbs.yaml, kbs/src/api_server.rs and tools/kbs-client/src/lib.rs.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import UsageError
from sevlaunch.files import read_bounded, require_private
from sevlaunch.owner.trustee import sample_message

_PREFIX = "kbs/v0"
# The policy that the attestation service takes for a CPU's TEE: tools/kbs-client/src/lib.rs.
_POLICY_ID = "default_cpu"
_JSON, _BINARY = "application/json", "application/octet-stream"
_MAX_TOKEN_BYTES = 1 << 14
# RFC 6750 section 2.1.
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
# A segment of dots alone would be another path.
_SEGMENT = r"(?!\.+(?:/|\Z))[A-Za-z0-9._-]+"
_RESOURCE = re.compile(f"{_SEGMENT}/{_SEGMENT}/{_SEGMENT}")


class Publication(Struct, frozen=True):
    """One request: a POST of ``content`` to ``path`` below the service's address. ``what`` it is, for people."""

    what: str
    path: str
    content: bytes
    kind: str = _JSON


def publications(
    *,
    values: Mapping[str, object] | None = None,
    attestation_policy: str | None = None,
    resource_policy: str | None = None,
    resources: Mapping[str, bytes] | None = None,
) -> Sequence[Publication]:
    """The requests, in the order in which they have to be made: a resource last, when what guards it is there.

    :param values: reference values by their names.
    :param attestation_policy: that of the attestation service, in rego; ``resource_policy``: that of the KBS.
    :param resources: contents by ``REPOSITORY/TYPE/TAG``.
    :raise UsageError: when a resource has another name.
    """
    found = []
    if values:
        message = json.dumps(sample_message(values)).encode()
        found.append(Publication("reference values", f"{_PREFIX}/reference-value", message))
    if attestation_policy is not None:
        body = {"type": "rego", "policy_id": _POLICY_ID, "policy": _base64url(attestation_policy)}
        found.append(Publication("attestation policy", f"{_PREFIX}/attestation-policy", json.dumps(body).encode()))
    if resource_policy is not None:
        body = {"policy": _base64url(resource_policy)}
        found.append(Publication("resource policy", f"{_PREFIX}/resource-policy", json.dumps(body).encode()))
    for name, content in (resources or {}).items():
        if not _RESOURCE.fullmatch(name):
            raise UsageError(f"wanted a resource's name such as default/key/1, found {name!r}")
        found.append(Publication(f"resource {name}", f"{_PREFIX}/resource/{name}", content, _BINARY))
    return found


def read_token(file: Path) -> str:
    """The administrator's token in a file that nobody else may read: one word.

    :raise UsageError: when it is none, or others may read it.
    """
    content = read_bounded(file, "--admin-token", _MAX_TOKEN_BYTES)
    require_private(file, "--admin-token")
    if not _TOKEN.fullmatch(content.strip()):
        raise UsageError(f"--admin-token: {file} has something else than one word", hint="is it another file?")
    return content.strip().decode()


def _base64url(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()
