"""A stand-in for trustee's KBS, with the paths, the checks and the errors of kbs/docs/kbs.yaml and kbs/src/error.rs."""

from __future__ import annotations

import base64
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.owner.verifiers import registered

TOKEN = "eyJhbGciOiJFZERTQSJ9.e30.c2ln"
_ERRORS = "https://github.com/confidential-containers/kbs/errors"


@dataclass
class Kbs:
    """What it has been told, in order, and how it answers.

    ``redirects_to``: it sends everybody there. ``garbage``: its errors are no JSON.
    """

    values: dict[str, Any] = field(default_factory=dict)
    attestation_policies: dict[str, str] = field(default_factory=dict)
    resource_policy: str = ""
    resources: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    redirects_to: str = ""
    garbage: bool = False
    url: str = ""

    def take(self, path: str, kind: str, body: bytes) -> None:
        """Take a request, or raise ValueError as its parts do."""
        if path.startswith("resource/"):
            self.resources[path.removeprefix("resource/")] = body
            return
        if kind != "application/json":
            raise ValueError("no JSON")
        document = json.loads(body)
        if path == "reference-value":
            self.values |= registered(document)
        elif path == "attestation-policy":
            if set(document) != {"type", "policy_id", "policy"} or document["type"] != "rego":
                raise ValueError("no policy")
            self.attestation_policies[document["policy_id"]] = _policy(document["policy"])
        elif path == "resource-policy":
            self.resource_policy = _policy(document["policy"])


def _policy(text: str) -> str:
    # URL_SAFE_NO_PAD: neither padding nor the other alphabet.
    if set(text) & set("=+/"):
        raise ValueError("Failed to decode policy")
    policy = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    if "package policy" not in policy:
        raise ValueError("Failed to parse policy")
    return policy


class _Handler(http.server.BaseHTTPRequestHandler):
    kbs: Kbs

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        kbs, path = self.kbs, self.path.removeprefix("/kbs/v0/")
        kbs.asked.append(path)
        if kbs.redirects_to:
            self.send_response(307)
            self.send_header("Location", kbs.redirects_to + self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return None
        known = path in ("reference-value", "attestation-policy", "resource-policy") or path.startswith("resource/")
        if not self.path.startswith("/kbs/v0/") or not known:
            return self._answer(404, "PluginNotFound", f"Plugin {path} not found")
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self._answer(401, "AdminAuthAccess", f"admin access denied for endpoint {path}")
        try:
            kbs.take(path, self.headers["Content-Type"], body)
        except (ValueError, AssertionError, KeyError) as error:
            return self._answer(401, "RvpsError" if path == "reference-value" else "ParsePolicyError", str(error))
        return self._answer(200)

    def _answer(self, status: int, kind: str = "", detail: str = "") -> None:
        error = {"type": f"{_ERRORS}/{kind}", "detail": detail}
        body = b"" if not kind else b"<html>\x1b[31m" if self.kbs.garbage else json.dumps(error).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def kbs_running() -> Iterator[Kbs]:
    """A KBS on loopback."""
    kbs = Kbs()
    handler = type("Handler", (_Handler,), {"kbs": kbs})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        kbs.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield kbs
        finally:
            server.shutdown()
            thread.join()
