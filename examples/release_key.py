"""A service that releases a key to one launch of a SEV-SNP guest, and to nobody else: Flask and sevlaunch.

The guest asks for a nonce (POST /nonce), makes an RSA key, asks its processor for a report over SHA-512 of nonce and
public key, and sends all of it (POST /key). After a yes it gets the secret, encrypted to its own key (RSA-OAEP).

    python examples/release_key.py --lock guest.lock --require rules.yaml --certs keys --secret passphrase
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from flask import Flask, Response, abort, jsonify, request
from msgspec.structs import replace

from sevlaunch.errors import SevlaunchError
from sevlaunch.owner.library import (
    CertificateFolder,
    Trust,
    WantedReport,
    new_nonce,
    read_certificate_folder,
    read_lock,
    read_requirements,
    report_from_bytes,
    report_of_lock,
    verify_report,
)

NONCE_SECONDS = 60
MAX_NONCES = 10_000
MAX_REQUEST = 1 << 16
LOG = logging.getLogger("release_key")


class Nonces:
    """Nonces that were given out: each is good for one answer, and for a minute."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}
        self._lock = threading.Lock()

    def give(self) -> bytes | None:
        """A new one; None while too many are out."""
        now = time.monotonic()
        with self._lock:
            self._until = {nonce: until for nonce, until in self._until.items() if until > now}
            if len(self._until) >= MAX_NONCES:
                return None
            nonce = new_nonce()
            self._until[nonce] = now + NONCE_SECONDS
        return nonce

    def take(self, nonce: bytes) -> bool:
        """Whether the nonce is out and still good; it is not any more afterwards."""
        with self._lock:
            until = self._until.pop(nonce, 0.0)
        return until > time.monotonic()


def binding(nonce: bytes, public_key: bytes) -> bytes:
    """What REPORT_DATA has to be: whoever has the report's guest has this key, and made the report for this nonce."""
    return hashlib.sha512(nonce + public_key).digest()


def create_app(wanted: WantedReport, known: CertificateFolder, secret: bytes, root: str | None = None) -> Flask:
    """The service.

    :param wanted: what the guest's report has to say; its report data are for each answer to say.
    :param known: certificates for it, and revocation lists.
    :param root: the fingerprint of the only ARK to trust, in place of AMD's.
    """
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST
    nonces = Nonces()

    @app.post("/nonce")
    def nonce() -> Response:
        given = nonces.give()
        if given is None:
            abort(503)
        return jsonify(nonce=base64.b64encode(given).decode())

    @app.post("/key")
    def key() -> Response:
        nonce, public_key, report = (field(name) for name in ("nonce", "public_key", "report"))
        if not nonces.take(nonce):
            abort(403, "no such nonce")
        guest = rsa_key(public_key)
        try:
            found = report_from_bytes(report)
        except SevlaunchError as error:
            abort(400, error.message)
        trust = Trust(at=datetime.now(UTC), root=root, revocations=known.revocations)
        asked = replace(wanted, report_data=binding(nonce, public_key))
        verdict = verify_report(found.content, (*known.certificates, *found.certificates), asked, trust)
        if not verdict.verified:
            LOG.warning("refused: %s", ", ".join(one.name for one in verdict.checks if one.ok is not True))
            abort(403, "the report is not that of the guest")
        scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
        return jsonify(key=base64.b64encode(guest.encrypt(secret, scheme)).decode())

    return app


def field(name: str) -> bytes:
    """The bytes of a field of the request, in base64."""
    try:
        document = request.get_json(silent=True)
        text = document.get(name) if isinstance(document, dict) else None
        return base64.b64decode(text or "", validate=True) or abort(400, f"wanted {name}")
    except (binascii.Error, ValueError, TypeError, RecursionError):
        abort(400, f"wanted {name} in base64")


def rsa_key(content: bytes) -> rsa.RSAPublicKey:
    """The guest's key, in DER."""
    try:
        found = serialization.load_der_public_key(content)
    except (ValueError, TypeError, NotImplementedError):
        abort(400, "wanted a public key in DER")
    if not isinstance(found, rsa.RSAPublicKey) or not 3072 <= found.key_size <= 8192:
        abort(400, "wanted an RSA key of 3072 bits or more")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--lock", "--require", "--certs", "--secret"):
        parser.add_argument(name, type=Path, required=name != "--require")
    given = parser.parse_args()
    rules = read_requirements(given.require).wanted() if given.require else {}
    locked = replace(report_of_lock(read_lock(given.lock)), **rules)
    # Behind a web server that speaks TLS, and is many: gunicorn, uwsgi.
    create_app(locked, read_certificate_folder(given.certs), given.secret.read_bytes()).run()
