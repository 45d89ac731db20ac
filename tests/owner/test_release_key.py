"""The example service: a guest that is right gets the key, and a thousand who are not get nothing."""

from __future__ import annotations

import base64
import importlib.util
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from flask.testing import FlaskClient

from sevlaunch.owner.library import CertificateFolder, Tcb, WantedReport, root_fingerprint
from tests.conftest import ROOT
from tests.owner.pki import Processor, flipped, processor

SECRET = b"the passphrase of a disk"
DIGEST, HOST_DATA, POLICY = bytes(range(48)), bytes(range(32)), 0x30000
HOSTILE = 1000


def example() -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("release_key", ROOT / "examples/release_key.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Guest:
    """A guest, or who wants to be taken for one."""

    client: FlaskClient
    module: ModuleType
    processor: Processor
    key: rsa.RSAPrivateKey

    @property
    def public_key(self) -> bytes:
        """Its key in DER."""
        return der_of(self.key)

    def nonce(self) -> bytes:
        """A nonce of the service's."""
        answer = self.client.post("/nonce")
        assert answer.status_code == 200
        return base64.b64decode(answer.get_json()["nonce"])

    def report(self, nonce: bytes, **changes: Any) -> bytes:
        """Its processor's report over nonce and key."""
        return self.processor.signed(report_data=self.module.binding(nonce, self.public_key), **changes)

    def ask(self, nonce: bytes, report: bytes, public_key: bytes | None = None) -> Any:
        """The service's answer to these."""
        fields = {"nonce": nonce, "report": report, "public_key": self.public_key if public_key is None else public_key}
        return self.client.post("/key", json={name: base64.b64encode(one).decode() for name, one in fields.items()})


def der_of(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The public key in DER."""
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture(scope="module")
def guest() -> Guest:
    """The guest that the service waits for."""
    made = processor("Milan", version=3)
    module = example()
    wanted = WantedReport(
        digest=DIGEST,
        policy=POLICY,
        host_data=HOST_DATA,
        min_tcb={"snp": 8, "microcode": 115},
        chip_ids=(made.report.chip_id,),
    )
    known = CertificateFolder(made.certificates)
    app = module.create_app(wanted, known, SECRET, root_fingerprint(made.certificates))
    return Guest(app.test_client(), module, made, rsa.generate_private_key(65537, 3072))


def test_the_guest_gets_the_key_and_it_alone_can_read_it(guest: Guest) -> None:
    nonce = guest.nonce()
    answer = guest.ask(nonce, guest.report(nonce))
    assert answer.status_code == 200
    wrapped = base64.b64decode(answer.get_json()["key"])
    scheme = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    assert guest.key.decrypt(wrapped, scheme) == SECRET
    assert SECRET not in wrapped


# Each makes one request of the number that it is given, and gives back the answer.
Attack = Callable[[Guest, random.Random], Any]
OTHER_KEY = rsa.generate_private_key(65537, 3072)
SMALL_KEY = rsa.generate_private_key(65537, 2048)


def with_report(**changes: Any) -> Attack:
    """An attacker whose guest is another one."""

    def attack(guest: Guest, _: random.Random) -> Any:
        nonce = guest.nonce()
        return guest.ask(nonce, guest.report(nonce, **changes))

    return attack


def replay(guest: Guest, _: random.Random) -> Any:
    """An answer that was good once, sent again."""
    nonce = guest.nonce()
    report = guest.report(nonce)
    assert guest.ask(nonce, report).status_code == 200
    return guest.ask(nonce, report)


def old_report(guest: Guest, _: random.Random) -> Any:
    """The report for another nonce, which was good."""
    return guest.ask(guest.nonce(), guest.report(guest.nonce()))


def own_nonce(guest: Guest, chance: random.Random) -> Any:
    """A nonce that the service has not made."""
    nonce = chance.randbytes(64)
    return guest.ask(nonce, guest.report(nonce))


def other_key(guest: Guest, _: random.Random) -> Any:
    """The guest's report, with a key of the attacker's."""
    nonce = guest.nonce()
    return guest.ask(nonce, guest.report(nonce), der_of(OTHER_KEY))


def weak_key(guest: Guest, _: random.Random) -> Any:
    """A key that is too short, bound as it should be."""
    weak = Guest(guest.client, guest.module, guest.processor, SMALL_KEY)
    nonce = weak.nonce()
    return weak.ask(nonce, weak.report(nonce))


def other_processor(guest: Guest, _: random.Random) -> Any:
    """A report that another key has signed, which no certificate vouches for."""
    other = Guest(guest.client, guest.module, processor("Milan", version=3), guest.key)
    nonce = other.nonce()
    return other.ask(nonce, other.report(nonce))


def flipped_bit(guest: Guest, chance: random.Random) -> Any:
    """The right report with one bit changed."""
    nonce = guest.nonce()
    return guest.ask(nonce, flipped(guest.report(nonce), chance.randrange(1184 * 8)))


def cut_short(guest: Guest, chance: random.Random) -> Any:
    """The right report, but not all of it."""
    nonce = guest.nonce()
    return guest.ask(nonce, guest.report(nonce)[: chance.randrange(1, 1184)])


def noise(guest: Guest, chance: random.Random) -> Any:
    """Random bytes in place of a field."""
    nonce = guest.nonce()
    fields = {"nonce": nonce, "report": guest.report(nonce), "public_key": guest.public_key}
    fields[chance.choice(list(fields))] = chance.randbytes(chance.randrange(1, 2000))
    return guest.ask(**fields)


def no_fields(guest: Guest, chance: random.Random) -> Any:
    """JSON that is something else, or none."""
    documents = [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"nonce": 3}', b'{"nonce": "?"}', b"[" * 3000]
    documents += [json.dumps({"nonce": None, "report": [], "public_key": {}}).encode(), chance.randbytes(100)]
    return guest.client.post("/key", data=chance.choice(documents), content_type="application/json")


def too_much(guest: Guest, chance: random.Random) -> Any:
    """More than the service reads."""
    nonce = guest.nonce()
    return guest.ask(nonce, guest.report(nonce) + chance.randbytes(guest.module.MAX_REQUEST))


ATTACKS: list[Attack] = [
    *(replay, old_report, own_nonce, other_key, weak_key, other_processor, flipped_bit, cut_short, noise),
    *(no_fields, too_much),
    with_report(policy=0xB0000),
    with_report(policy=0x70000),
    with_report(measurement=DIGEST[::-1]),
    with_report(host_data=bytes(32)),
    with_report(chip_id=bytes(range(2, 66))),
    with_report(chip_id=bytes(64)),
    with_report(vmpl=1),
    with_report(launch_tcb=Tcb(3, 0, 7, 115).to_bytes()),
    with_report(reported_tcb=Tcb(3, 0, 8, 114).to_bytes()),
    with_report(key_info=7 << 2),
]


def test_a_thousand_who_are_not_the_guest_get_nothing(guest: Guest) -> None:
    chance = random.Random(1)
    for number in range(HOSTILE):
        answer = ATTACKS[number % len(ATTACKS)](guest, chance)
        assert answer.status_code in (400, 403, 413, 415), (number, answer.status_code)
        assert b'"key"' not in answer.data
    # And the guest still gets it.
    test_the_guest_gets_the_key_and_it_alone_can_read_it(guest)


def test_a_nonce_is_good_for_a_minute(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    nonce = guest.nonce()
    now = guest.module.time.monotonic()
    monkeypatch.setattr(guest.module.time, "monotonic", lambda: now + guest.module.NONCE_SECONDS + 1)
    assert guest.ask(nonce, guest.report(nonce)).status_code == 403


def test_nonces_are_bounded(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest.module, "MAX_NONCES", 3)
    nonces = guest.module.Nonces()
    given = [nonces.give() for _ in range(4)]
    assert given[3] is None
    assert len(set(given)) == 4
    assert nonces.take(given[0])
    assert not nonces.take(given[0])
    assert nonces.give() is not None


def test_it_is_short() -> None:
    assert len((ROOT / "examples/release_key.py").read_text().splitlines()) < 150
