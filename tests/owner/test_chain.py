"""SEV certificate chains: whole ones verify, and nothing in them can change."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from sevlaunch.errors import UsageError
from sevlaunch.owner.chain import Chain, ChainVerdict, parse_sev_certificates, read_root, verify_chain
from sevlaunch.owner.checks import Verdict
from sevlaunch.owner.roots import fingerprint
from sevlaunch.sevapi.certificate import Algorithm, Certificate, Signature, Usage
from tests.guest.support import tries
from tests.owner.pki import flipped, rsa_key, sev_chain
from tests.published import vector

NAMES = ("pdh", "pek", "oca", "cek", "ask", "ark")


def verdict(*parts: bytes, root: bool = False) -> ChainVerdict:
    """What becomes of the certificates in ``parts``; with ``root``, our own ARK is trusted."""
    chain = Chain.of(one for part in parts for one in parse_sev_certificates(part))
    return verify_chain(chain, root=sev_chain().ark if root else None)


def answers(found: Verdict) -> dict[str, bool | None]:
    """The answers by their names."""
    return {check.name: check.ok for check in found.checks}


def refuses(*parts: bytes, root: bool = False) -> bool:
    """Whether the certificates do not verify, or are no certificates at all."""
    try:
        return not verdict(*parts, root=root).verified
    except (ValueError, UsageError):
        return True


def naples() -> list[bytes]:
    """A real platform's chain, with AMD's keys."""
    return [vector(f"naples-{name}.cert") for name in NAMES]


def rome() -> list[bytes]:
    """The same of a platform of the second generation."""
    return [vector(f"rome/{name}.cert") for name in NAMES]


def test_the_naples_chain_verifies_up_to_amds_root() -> None:
    found = verdict(*naples())
    assert found.verified
    assert found.checks[-1].detail == "AMD's root key for Naples"


def test_the_rome_chain_verifies_and_with_any_certificate_of_naples_it_does_not() -> None:
    found = verdict(*rome())
    assert found.verified
    assert found.checks[-1].detail == "AMD's root key for Rome"
    for index, (name, other) in enumerate(zip(NAMES, naples(), strict=True)):
        mixed = [*rome()[:index], other, *rome()[index + 1 :]]
        assert refuses(*mixed), f"the {name} of Naples"


@tries(60, 4000)
def test_no_bit_of_any_naples_certificate_can_change(count: int) -> None:
    chain = naples()
    for index, name in enumerate(NAMES):
        bits = len(chain[index]) * 8
        chosen = random.Random(name).sample(range(bits), count)
        for bit in (0, 7, bits - 1, bits // 2, *chosen):
            altered = [*chain[:index], flipped(chain[index], bit), *chain[index + 1 :]]
            assert refuses(*altered), f"bit {bit} of {name}"


@tries(25, 4000)
def test_no_bit_of_any_certificate_of_ours_can_change(count: int) -> None:
    ours = sev_chain()
    chain = [getattr(ours, name).to_bytes() for name in NAMES]
    for index, name in enumerate(NAMES):
        bits = len(chain[index]) * 8
        for bit in random.Random(name).sample(range(bits), count):
            altered = [*chain[:index], flipped(chain[index], bit), *chain[index + 1 :]]
            assert refuses(*altered, root=True), f"bit {bit} of {name}"
    assert not refuses(*chain, root=True)


def test_a_root_that_is_not_amds_is_named_and_never_taken_for_amds() -> None:
    ours = sev_chain()
    found = verdict(ours.exported, ours.authorities)
    assert found.failed
    assert [check.name for check in found.checks if check.ok is not True] == ["root"]
    assert found.checks[-1].detail.startswith("REHEARSAL or unknown root: ")
    trusted = verdict(ours.exported, ours.authorities, root=True)
    assert trusted.verified
    assert trusted.checks[-1].detail.startswith("the root that was given: ")
    # The root that is given completes a chain.
    assert verdict(ours.exported, ours.ask.to_bytes(), root=True).verified


def test_with_a_root_given_amds_is_not_trusted() -> None:
    found = verdict(*naples(), root=True)
    assert found.failed
    assert answers(found)["root"] is False


def test_rsa_4096_signs_as_since_rome() -> None:
    ours = sev_chain(4096)
    chain = Chain.of(parse_sev_certificates(ours.exported + ours.authorities))
    assert verify_chain(chain, root=ours.ark).verified


def test_what_was_not_given_is_not_checked_and_not_verified() -> None:
    ours = sev_chain()
    found = verdict(ours.exported)
    assert not found.verified
    assert not found.failed
    assert answers(found) == dict.fromkeys(("PDH", "PEK", "OCA"), True) | dict.fromkeys(("CEK", "ASK", "ARK", "root"))
    for missing in ("pek", "oca", "cek", "ask", "ark"):
        parts = [getattr(ours, name).to_bytes() for name in NAMES if name != missing]
        assert not verdict(*parts).verified


def test_a_cek_without_amds_signature_is_explained() -> None:
    ours = sev_chain()
    bare = replace(ours.cek, signatures=(Signature(), Signature()))
    parts = [ours.pdh.to_bytes(), ours.pek.to_bytes(), ours.oca.to_bytes(), bare.to_bytes()]
    found = verdict(*parts)
    assert (found.verified, found.failed) == (False, False)
    cek = next(check for check in found.checks if check.name == "CEK")
    assert "https://kdsintf.amd.com/cek/id/" in cek.detail
    # With AMD's keys at hand the proof is wanted.
    assert verdict(*parts, ours.authorities, root=True).failed
    # The signed one from AMD takes its place, in whatever order.
    assert verdict(*parts, ours.cek.to_bytes(), ours.authorities, root=True).verified
    assert verdict(ours.cek.to_bytes(), *parts, ours.authorities, root=True).verified


def test_two_certificates_for_one_place_are_refused() -> None:
    ours = sev_chain()
    other = replace(ours.pek, api_minor=50)
    with pytest.raises(UsageError, match="two different PEK"):
        verdict(ours.exported, other.to_bytes())
    assert verdict(ours.exported, ours.exported, ours.authorities, root=True).verified


def test_an_empty_signature_slot_holds_nothing() -> None:
    ours = sev_chain()
    first = ours.pdh.signatures[0]
    for second in (first, Signature(content=b"x".ljust(512, b"\0")), Signature(usage=0x1001)):
        pdh = replace(ours.pdh, signatures=(first, second))
        assert refuses(pdh.to_bytes(), ours.exported[2084:], ours.authorities, root=True)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        # Who signed is part of the slot; a right signature does not make up for another name.
        ("pdh", {"usage": Usage.OCA}),
        ("cek", {"usage": Usage.ARK}),
        # The other scheme of the key, one of another kind of key, and none.
        *(("pdh", {"algorithm": one}) for one in (Algorithm.ECDSA_SHA384, Algorithm.RSA_SHA256, 7)),
        *(("cek", {"algorithm": one}) for one in (Algorithm.RSA_SHA384, Algorithm.ECDSA_SHA256, 7)),
    ],
)
def test_a_signature_is_what_its_slot_says(name: str, changes: dict[str, int]) -> None:
    ours = sev_chain()
    certificate: Certificate = getattr(ours, name)
    slots = (replace(certificate.signatures[0], **changes), certificate.signatures[1])  # type: ignore[arg-type]
    parts = {one: getattr(ours, one).to_bytes() for one in NAMES}
    parts[name] = replace(certificate, signatures=slots).to_bytes()
    assert answers(verdict(*parts.values(), root=True))[name.upper()] is False


@pytest.mark.parametrize(("name", "at"), [("pdh", 144), ("pdh", 511), ("cek", 256), ("cek", 511)])
def test_behind_a_signature_there_is_nothing(name: str, at: int) -> None:
    ours = sev_chain()
    certificate: Certificate = getattr(ours, name)
    first = certificate.signatures[0]
    assert first.content[at] == 0
    slots = (replace(first, content=flipped(first.content, at * 8)), certificate.signatures[1])
    parts = {one: getattr(ours, one).to_bytes() for one in NAMES}
    parts[name] = replace(certificate, signatures=slots).to_bytes()
    assert answers(verdict(*parts.values(), root=True))[name.upper()] is False


@pytest.mark.parametrize("name", NAMES)
def test_a_root_vouches_only_for_what_verifies_up_to_it(name: str) -> None:
    ours = sev_chain()
    parts = {one: getattr(ours, one).to_bytes() for one in NAMES}
    found = verdict(*parts.values())
    assert (found.root, found.is_amds) == (fingerprint(ours.ark.public_key), False)
    assert verdict(*(part for one, part in parts.items() if one != name)).root is None
    # A byte of its signature: behind usage and algorithm of the first slot, or at the end of one of AMD's.
    at = len(parts[name]) - 1 if name in ("ask", "ark") else 16 + 1028 + 8
    assert verdict(*{**parts, name: flipped(parts[name], at * 8)}.values()).root is None


def test_a_pek_needs_both_of_its_signatures() -> None:
    ours = sev_chain()
    for slot in ours.pek.signatures:
        pek = replace(ours.pek, signatures=(slot, Signature()))
        found = verdict(ours.pdh.to_bytes(), pek.to_bytes(), ours.exported[2 * 2084 :], ours.authorities, root=True)
        assert answers(found)["PEK"] is False


def test_of_two_ceks_the_signed_one_is_of_the_same_key() -> None:
    ours = sev_chain()
    bare = replace(ours.cek, signatures=(Signature(), Signature()))
    for other in (replace(bare, key=ours.pek.key), replace(ours.cek, api_minor=50)):
        with pytest.raises(UsageError, match="two different CEK"):
            verdict(ours.exported, other.to_bytes())


def test_a_root_is_an_ark_with_a_key(tmp_path: Path) -> None:
    ours = sev_chain()
    file = tmp_path / "root"
    file.write_bytes(ours.authorities)
    assert read_root(file) == ours.ark
    file.write_bytes(ours.ask.to_bytes())
    with pytest.raises(UsageError, match="has no ARK"):
        read_root(file)
    found = verdict(ours.exported, ours.ask.to_bytes(), replace(ours.ark, exponent=2).to_bytes())
    assert found.checks[-1].ok is False
    assert found.checks[-1].detail.startswith("the ARK's key is none: ")


def test_an_authority_is_signed_by_the_root_that_it_names() -> None:
    ours = sev_chain()
    # The root's key made this signature, and yet the certificate says that another one did.
    ask = replace(ours.ask, certifying_id=b"?" * 16).signed_by(rsa_key("ark", 2048))
    found = verdict(ours.exported, ask.to_bytes(), ours.ark.to_bytes(), root=True)
    assert [name for name, ok in answers(found).items() if not ok] == ["ASK"]
    ark = replace(ours.ark, certifying_id=b"?" * 16).signed_by(rsa_key("ark", 2048))
    found = verdict(ours.exported, ours.ask.to_bytes(), ark.to_bytes(), root=True)
    assert [name for name, ok in answers(found).items() if not ok] == ["ARK"]


def test_what_is_no_certificate_is_refused() -> None:
    ours = sev_chain()
    unknown = Certificate(0x1000, 0, ours.pdh.key).to_bytes()
    for content in (b"", ours.exported[:-1], ours.exported + b"\0", bytes(2084), unknown, ours.authorities[:-1]):
        with pytest.raises(ValueError):
            parse_sev_certificates(content)
