"""A CoRIM of a launch: right by its grammar, and for a reader that is not the writer's."""

from __future__ import annotations

import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cbor2
import pytest

from tests.conftest import Command
from tests.owner.allowed import digest, snp_profile


@pytest.fixture
def profile(base: Path) -> Path:
    """An SNP profile with two vCPUs."""
    return snp_profile(base)


# draft-ietf-rats-corim, as the profile for launch measurements narrows it down.
CDDL = """
corim = #6.501({
  0 => "AMD/SEV-SNP/launch-measurement",
  1 => [ #6.506(bytes .cbor comid) ],
  3 => #6.32("tag:microsoft.com,2026:launch-measurement/v1"),
  ? 4 => { 1 => #6.1(uint) }
})
comid = {
  1 => { 0 => "77e8061e-4634-5e53-a848-d1d09e996843" },
  4 => {
    0 => [ [ environment, [ measurement ] ] ],
    8 => [ [ [ environment, [] ], [ [ [ measurement ], [ endorsed ] ] ] ] ]
  }
}
environment = { 0 => { 1 => "AMD", 2 => "SEV-SNP" } }
measurement = { 0 => "MEASUREMENT", 1 => { 2 => [ [ 7, bytes .size 48 ] ] } }
endorsed = { 1 => { 1 => #6.552(uint) } }
"""


def corim_of(sevlaunch: Command, profile: Path, base: Path, *words: str) -> bytes:
    """The document."""
    given = ("owner", "reference-values", profile, "--format", "corim", "--svn", "7", "--out", base / "launch.corim")
    sevlaunch(*given, *words)
    content = (base / "launch.corim").read_bytes()
    (base / "launch.corim").unlink()
    return content


def test_a_corim_is_one_by_its_grammar(profile: Path, sevlaunch: Command, base: Path) -> None:
    if find_spec("pycddl") is None:
        pytest.skip("pycddl is not there: it has no release for this Python")
    import pycddl

    schema = pycddl.Schema(CDDL)
    schema.validate_cbor(corim_of(sevlaunch, profile, base))
    content = corim_of(sevlaunch, profile, base, "--expires", "2027-06-01")
    schema.validate_cbor(content)
    for spoiled in (content[:-1], content.replace(b"MEASUREMENT", b"MEASUREMENU"), content.replace(b"AMD", b"ADM")):
        with pytest.raises(pycddl.ValidationError):
            schema.validate_cbor(spoiled)


def head(content: bytes, at: int) -> tuple[int, int, int]:
    """Major type and argument of the item at ``at``, and where it goes on: RFC 8949 section 3."""
    major, info = content[at] >> 5, content[at] & 0x1F
    assert info < 28, "indefinite lengths are not deterministic"
    size = 1 << info - 24 if info >= 24 else 0
    argument = int.from_bytes(content[at + 1 : at + 1 + size], "big") if size else info
    return major, argument, at + 1 + size


def read_cbor(content: bytes, at: int = 0) -> tuple[Any, int]:
    """An item as plain data, tags as pairs."""
    major, argument, at = head(content, at)
    if major == 0:
        return argument, at
    if major in (2, 3):
        text = content[at : at + argument]
        return text if major == 2 else text.decode(), at + argument
    if major == 4:
        items = []
        for _ in range(argument):
            item, at = read_cbor(content, at)
            items.append(item)
        return items, at
    if major == 5:
        found: dict[int, Any] = {}
        for _ in range(argument):
            key, at = read_cbor(content, at)
            assert not found or key > max(found), "keys are in order, each once"
            found[key], at = read_cbor(content, at)
        return found, at
    assert major == 6
    inner, at = read_cbor(content, at)
    return (argument, inner), at


def test_a_corim_is_read_back_by_another_reader(profile: Path, sevlaunch: Command, base: Path) -> None:
    content = corim_of(sevlaunch, profile, base)
    (tag, document), end = read_cbor(content)
    assert (tag, end, set(document)) == (501, len(content), {0, 1, 3})
    ((inner_tag, inner),) = document[1]
    comid, _ = read_cbor(inner)
    assert inner_tag == 506
    ((environment, (measurement,)),) = comid[4][0]
    assert environment == {0: {1: "AMD", 2: "SEV-SNP"}}
    assert measurement == {0: "MEASUREMENT", 1: {2: [[7, digest(2)]]}}
    (((condition, claims_list), (((selected,), (added,)),)),) = comid[4][8]
    assert (condition, claims_list, selected, added) == (environment, [], measurement, {1: {1: (552, 7)}})
    assert cbor2.loads(corim_of(sevlaunch, profile, base, "--expires", "2027-06-01")).value[4][1].year == 2027
    # To standard output it is the same, to the byte.
    given = ("owner", "reference-values", str(profile), "--format", "corim", "--svn", "7")
    done = subprocess.run(sevlaunch.argv(*given), env=sevlaunch.environment, capture_output=True, check=True)
    assert done.stdout == content
