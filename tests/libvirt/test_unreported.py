"""Whatever stands in a domain is reported: a mark in any place of it comes out in an outcome."""

from __future__ import annotations

from pathlib import Path

import pytest

from sevlaunch.errors import ProfileError
from sevlaunch.libvirt.document import Element, read_domain
from tests.libvirt.support import SUSE, imported
from tests.published import libvirts_domains

LEFT = ("dropped", "not supported", "refused")


def marked(element: Element) -> str:
    """The domain as XML, with an attribute and a child in each element that sevlaunch can't know."""
    attributes = "".join(f' {_name(key)}="{_escaped(value)}"' for key, value in element.attributes.items())
    inner = _escaped(element.text) + "".join(marked(child) for child in element.children)
    name = _name(element.name)
    head = ' xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0" xmlns:o="urn:other"' if not element.parent else ""
    return f'<{name}{head}{attributes} zz-probe="1">\n{inner}<zz-probe/></{name}>'


def _name(name: str) -> str:
    return f"o:{name.rpartition('}')[2]}" if name.startswith("{") else name


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def unreported(content: bytes) -> list[str]:
    """The elements of a domain where an unknown attribute or child would vanish."""
    probed = marked(read_domain(content, file="d.xml")).encode()
    result = imported(probed)
    outcomes = {(outcome.line, outcome.element): outcome.kind.value for outcome in result.outcomes}
    waiting = [read_domain(probed, file="d.xml")]
    missing = []
    while waiting:
        element = waiting.pop()
        # Left behind as a whole, with all that is in it.
        if outcomes.get((element.line, str(element))) in LEFT and element.name != "zz-probe":
            continue
        name = f"{element}@zz-probe"
        if element.name != "zz-probe" and outcomes.get((element.line, name)) != "not supported":
            missing.append(name)
        if element.name == "zz-probe" and outcomes.get((element.line, str(element))) != "not supported":
            missing.append(str(element))
        waiting += element.children
    return missing


def test_whatever_stands_in_an_element_is_reported() -> None:
    assert unreported(SUSE.read_bytes()) == []


def usable(file: Path) -> bool:
    """Whether a domain can be imported at all."""
    try:
        imported(file.read_bytes())
    except ProfileError:
        return False
    return True


@pytest.mark.parametrize("step", [20, pytest.param(1, marks=pytest.mark.soak)])
def test_whatever_stands_in_an_element_of_libvirts_own_domains_is_reported(step: int) -> None:
    files = [file for file in libvirts_domains()[::step] if usable(file)]
    assert len(files) > 1500 // step
    assert {file.name: found for file in files if (found := unreported(file.read_bytes()))} == {}
