"""Domain XML -> elements that know their line. XML from strangers: no DTD, so no entities; bounded size and depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NoReturn
from xml.parsers import expat

from msgspec import Struct

from sevlaunch.errors import Problem, ProfileError

# The largest domain of libvirt's own tests has 30 KiB.
MAX_BYTES = 1 << 18
MAX_ELEMENTS = 20_000
MAX_DEPTH = 64
MAX_NAME = 256

# libvirt's src/qemu/qemu_conf.h: QEMU_NAMESPACE_HREF.
QEMU_NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"

_SEPARATOR = " "


class Part(Struct, frozen=True):
    """What an outcome can be about: an attribute of an element, or (``attribute`` empty) the element's own text."""

    element: Element
    attribute: str = ""

    @property
    def line(self) -> int:
        """The line of the element in the XML, from 1."""
        return self.element.line

    def __str__(self) -> str:
        return f"{self.element}@{self.attribute}" if self.attribute else str(self.element)


@dataclass(eq=False)
class Element:
    """An XML element. ``line`` 0 is one that is not there: it has no attributes, no text and no children."""

    name: str
    line: int = 0
    parent: Element | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def __bool__(self) -> bool:
        return self.line > 0

    def __str__(self) -> str:
        """The way to the element, from below the domain: ``devices/disk/source``."""
        above = str(self.parent) if self.parent and self.parent.parent else ""
        return f"{above}/{self.name}" if above else self.name

    def child(self, name: str) -> Element:
        """The first child of that name, or one that is not there."""
        return next(self.all(name), Element(name, parent=self))

    def all(self, name: str) -> Iterator[Element]:
        """The children of that name."""
        return (child for child in self.children if child.name == name)

    def get(self, attribute: str) -> str | None:
        """The value of an attribute."""
        return self.attributes.get(attribute)

    def part(self, attribute: str) -> Part | None:
        """An attribute as what an outcome is about, if it is there."""
        return Part(self, attribute) if attribute in self.attributes else None

    def parts(self) -> Iterator[Part]:
        """All that has to be accounted for: attributes and text, here and below; an element with nothing is one."""
        waiting = [self]
        while waiting:
            element = waiting.pop()
            yield from element.own_parts()
            waiting += reversed(element.children)

    def own_parts(self) -> Iterator[Part]:
        """As :meth:`parts`, of this element alone."""
        yield from (Part(self, attribute) for attribute in self.attributes)
        if self.text or not (self.attributes or self.children):
            yield Part(self)


def read_domain(content: bytes, *, file: str) -> Element:
    """The ``<domain>`` in ``content``.

    :param file: its name for messages.
    :raise ProfileError: when it is too large, too deep, no well-formed XML, has a DTD, or is no domain.
    """
    if len(content) > MAX_BYTES:
        raise refusal(f"wanted domain XML of at most {MAX_BYTES} bytes, found more", file)
    root = _Reader(file).read(content)
    if root.name != "domain":
        raise refusal(
            f"wanted <domain>, found <{root.name}>", file, root.line, hint="`virsh dumpxml NAME` prints a domain"
        )
    return root


def refusal(message: str, file: str, line: int = 0, column: int = 0, *, hint: str = "") -> ProfileError:
    """The error for a domain that can't be imported, at a place in its file."""
    location = ":".join(str(part) for part in (file, line, column) if part)
    return ProfileError(f"{file} is refused", problems=[Problem(message, location=location, hint=hint)])


class _Reader:
    """Builds the tree from what expat finds; nothing is kept of a document that breaks a limit."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._root: Element | None = None
        self._open: list[Element] = []
        self._texts: list[list[str]] = []
        self._count = 0
        # With a separator, names come as "namespace name".
        self._parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype

    def read(self, content: bytes) -> Element:
        try:
            self._parser.Parse(content, True)
        except expat.ExpatError as error:
            reason = expat.ErrorString(error.code)
            raise refusal(f"no well-formed XML: {reason}", self._file, error.lineno, error.offset + 1) from error
        except (LookupError, ValueError) as error:
            # An encoding that Python has no codec for, or one of several bytes a character.
            self._refuse(f"can't read this encoding ({error}): use UTF-8")
        assert self._root is not None, "expat refuses a document without an element"
        return self._root

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > MAX_ELEMENTS:
            self._refuse(f"more than {MAX_ELEMENTS} elements")
        if len(self._open) >= MAX_DEPTH:
            self._refuse(f"elements are nested more than {MAX_DEPTH} levels deep")
        if max(map(len, (name, *attributes))) > MAX_NAME:
            self._refuse(f"a name of more than {MAX_NAME} characters")
        parent = self._open[-1] if self._open else None
        attributes = {_local(key): value for key, value in attributes.items()}
        element = Element(_local(name), self._parser.CurrentLineNumber, parent, attributes)
        if parent:
            parent.children.append(element)
        else:
            self._root = element
        self._open.append(element)
        self._texts.append([])

    def _end(self, name: str) -> None:
        self._open.pop().text = "".join(self._texts.pop()).strip()

    def _characters(self, text: str) -> None:
        self._texts[-1].append(text)

    def _doctype(self, *_: object) -> None:
        self._refuse("a DTD (<!DOCTYPE) is refused: domain XML has none, and its entities could be anything")

    def _refuse(self, message: str) -> NoReturn:
        raise refusal(message, self._file, self._parser.CurrentLineNumber, self._parser.CurrentColumnNumber + 1)


def _local(name: str) -> str:
    namespace, separator, local = name.rpartition(_SEPARATOR)
    if not separator:
        return name
    return f"qemu:{local}" if namespace == QEMU_NAMESPACE else f"{{{namespace}}}{local}"
