"""YAML with positions: every value remembers the file, line and column that it came from.

The scalars are those of YAML 1.2's core schema, so that ``2222:22`` stays text and ``no`` is not a boolean by
accident; fields that want a boolean still take ``on``, ``off``, ``yes`` and ``no``.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import yaml
from msgspec import Struct

from sevlaunch.errors import Problem, ProfileError
from sevlaunch.opening import open_given, open_regular

MAX_BYTES = 1 << 20
MAX_VALUES = 50_000
MAX_DEPTH = 64
MAX_DIGITS = 100


class Mark(Struct, frozen=True):
    """Where a value stands. ``line`` and ``column`` count from 1; 0 means a whole option such as ``--set``."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


class Text(str):
    """A string of a profile that remembers the folder that relative paths in it start from."""

    base: Path

    def __new__(cls, value: str, base: Path) -> Text:
        text = super().__new__(cls, value)
        text.base = base
        return text


class Node(Struct, frozen=True):
    """A value of a profile: ``value`` is a dict or a list of Nodes, or a scalar."""

    value: Any
    mark: Mark
    key_mark: Mark | None = None
    base: Path = Path()

    def plain(self) -> Any:
        """The value without positions; strings become :class:`Text`."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return Text(self.value, self.base) if isinstance(self.value, str) else self.value

    def child(self, part: str | int) -> Node | None:
        """The node below, or None."""
        if isinstance(self.value, dict):
            return self.value.get(part)
        if isinstance(self.value, list) and isinstance(part, int) and 0 <= part < len(self.value):
            return cast("Node", self.value[part])
        return None


class _CoreSchemaLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """PyYAML's loader with the implicit types of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|Null|NULL|)", ["~", "n", "N", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", list("tTfF")),
    ("int", r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        list("-+.0123456789"),
    ),
):
    _CoreSchemaLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first)


def read(path: Path, problems: list[Problem], *, given: bool = False) -> Node:
    """The profile file ``path`` as nodes; mistakes that leave the rest readable are added to ``problems``.

    :param given: the path is from the command line, and so may be a descriptor of this process.
    :raise ProfileError: when it can't be read, or is no YAML mapping.
    """
    file = str(path)
    try:
        with open_given(path) if given else open_regular(path) as stream:
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        # ValueError: a path with NUL.
        reason = error.strerror if isinstance(error, OSError) else error
        raise ProfileError(
            f"can't read profile {file}: {reason}",
            problems=[Problem(f"can't read the profile: {reason}", location=file)],
        ) from error
    return parse(content, file=file, base=path.absolute().parent, problems=problems)


def parse(
    content: bytes | str,
    *,
    file: str,
    base: Path,
    problems: list[Problem],
    everywhere: Mark | None = None,
    what: str = "profile",
) -> Node:
    """YAML ``content`` as nodes; ``file`` is the name for messages, ``base`` the folder of relative paths.

    Mistakes that leave the rest readable, such as duplicate keys, are added to ``problems``. With ``everywhere``,
    all values stand there rather than at their lines and columns. ``what`` it is, for messages.

    :raise ProfileError: when it is no YAML mapping.
    """
    if len(content) > MAX_BYTES:
        raise _refused(f"the file is larger than {MAX_BYTES} bytes", Mark(file))
    if isinstance(content, str) and not _encodable(content):
        raise _refused("the text holds a lone surrogate, which no program can be given", Mark(file))
    try:
        _check_depth(content, file)
        root = yaml.compose(content, Loader=_CoreSchemaLoader)
    except yaml.reader.ReaderError as error:
        raise _refused(f"this is not text in UTF-8: {error.reason}", _mark_at(file, content, error.position)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = Mark(file, mark.line + 1, mark.column + 1) if mark else Mark(file)
        context = f"{error.context}: " if error.context else ""
        raise _refused(f"no valid YAML: {context}{error.problem}", at) from error
    if root is None:
        raise _refused(f"the {what} is empty", Mark(file, 1, 1))
    node = _Builder(file, base, problems, everywhere).build(root, None)
    if not isinstance(node.value, dict):
        raise _refused("wanted a mapping of keys and values", node.mark)
    return node


def _mark_at(file: str, content: bytes | str, offset: int) -> Mark:
    raw = content.encode() if isinstance(content, str) else content
    lines = raw[:offset].split(b"\n")
    return Mark(file, len(lines), len(lines[-1].decode("utf-8", "replace")) + 1)


def _check_depth(content: bytes | str, file: str) -> None:
    # Composing is recursive in C: some 10,000 levels overflow the stack and end the process. Parsing is not.
    try:
        _follow_depth(content, file)
    except yaml.MarkedYAMLError as error:
        # A parser with a limit of its own looks up to 1024 characters ahead, and so may refuse what is too deep before
        # it told of the levels above. Up to where it stopped it has nothing against the text but that it ends there.
        if error.problem_mark:
            text = _decoded(content)[: error.problem_mark.index]
            with suppress(yaml.YAMLError):
                _follow_depth(text, file)
        raise


def _follow_depth(content: bytes | str, file: str) -> None:
    depth = 0
    for event in yaml.parse(content, Loader=_CoreSchemaLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                start = event.start_mark
                raise _too_deep(Mark(file, start.line + 1, start.column + 1) if start else Mark(file))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _decoded(content: bytes | str) -> str:
    """The characters that the parser's marks count."""
    if isinstance(content, str):
        return content
    return content.decode("utf-16" if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "utf-8", "replace")


class _Builder:
    """Turns PyYAML's nodes into ours, collecting problems."""

    def __init__(self, file: str, base: Path, problems: list[Problem], everywhere: Mark | None) -> None:
        self.file = file
        self.base = base
        self.problems = problems
        self.everywhere = everywhere
        self._count = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node, key_mark: Mark | None) -> Node:
        self._count += 1
        mark = self._mark(node)
        if self._count > MAX_VALUES:
            raise _refused(f"the profile has more than {MAX_VALUES} values", mark)
        if id(node) in self._open:
            raise _refused("an alias refers to the value that contains it", mark)
        # Aliases nest deeper than the text does.
        if len(self._open) > MAX_DEPTH:
            raise _too_deep(mark)
        self._open.add(id(node))
        if not isinstance(node, yaml.ScalarNode) and node.tag not in _COLLECTION_TAGS:
            self._unsupported_tag(node, mark)
        value: Any
        if isinstance(node, yaml.MappingNode):
            value = dict(self._items(node))
        elif isinstance(node, yaml.SequenceNode):
            value = [self.build(child, None) for child in node.value]
        else:
            value = self._scalar(node, mark)
        self._open.discard(id(node))
        return Node(value, mark, key_mark, self.base)

    def _items(self, node: yaml.MappingNode) -> Iterator[tuple[str, Node]]:
        first: dict[str, Mark] = {}
        for key_node, value_node in node.value:
            mark = self._mark(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem("a key must be plain text", location=str(mark)))
                continue
            key = str(key_node.value)
            if key in first:
                self.problems.append(
                    Problem(f"duplicate key {key!r}: it stands at {first[key]} already", location=str(mark))
                )
                continue
            first[key] = mark
            yield key, self.build(value_node, mark)

    def _scalar(self, node: yaml.Node, mark: Mark) -> Any:
        text = str(node.value)
        match node.tag.removeprefix("tag:yaml.org,2002:"):
            case "str":
                if "\0" in text or not _encodable(text):
                    self.problems.append(
                        Problem(
                            "the text holds a NUL or a lone surrogate, which no program can be given",
                            location=str(mark),
                        )
                    )
                return text
            case "int" | "float" | "bool" as kind:
                try:
                    return _scalar_value(kind, text)
                except ValueError as error:
                    self.problems.append(Problem(str(error), location=str(mark)))
                    return None
            case "null":
                return None
        self._unsupported_tag(node, mark)
        return None

    def _unsupported_tag(self, node: yaml.Node, mark: Mark) -> None:
        self.problems.append(Problem(f"the YAML tag {node.tag!r} is not supported in a profile", location=str(mark)))

    def _mark(self, node: yaml.Node) -> Mark:
        if self.everywhere:
            return self.everywhere
        start = node.start_mark
        return Mark(self.file, start.line + 1, start.column + 1)


_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


def _scalar_value(kind: str, text: str) -> int | float | bool:
    # Python's own limit is about the digits that it converts, in either direction.
    if len(text) > MAX_DIGITS:
        raise ValueError(f"wanted at most {MAX_DIGITS} digits, found {len(text)}")
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "float":
            return float(text)
        return int(text, 0) if text[:2] in ("0x", "0o") else int(text)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{text!r} is no {kind}") from error


def _too_deep(mark: Mark) -> ProfileError:
    return _refused(f"the values are nested more than {MAX_DEPTH} levels deep", mark)


def _refused(message: str, mark: Mark) -> ProfileError:
    return ProfileError(f"{mark}: {message}", problems=[Problem(message, location=str(mark))])


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def merge(below: Node, above: Node) -> Node:
    """``above`` laid over ``below``: mappings merge key by key, everything else is replaced."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    merged = dict(below.value)
    for key, child in above.value.items():
        merged[key] = merge(merged[key], child) if key in merged else child
    return Node(merged, above.mark, above.key_mark, above.base)


def assign(root: Node, path: str, text: str, *, base: Path, option: str, problems: list[Problem]) -> Node:
    """``root`` with the dotted ``path`` set to the YAML value ``text``; list entries go by number.

    Text that is no YAML, such as ``console=ttyS0: x``, stands for itself.

    :raise ProfileError: when the path is empty or runs past the end of a list.
    """
    mark = Mark(option)
    parts = path.split(".")
    if not all(parts) or len(parts) > MAX_DEPTH:
        raise _refused(f"wanted PATH=VALUE such as cpu.count=8, found path {path!r}", mark)
    try:
        leaf = parse(f"value: {text}", file=option, base=base, problems=problems, everywhere=mark).value["value"]
    except (ProfileError, KeyError):
        leaf = Node(text, mark, mark, base)
    return _assigned(root, parts, leaf, mark)


def _assigned(node: Node, parts: list[str], leaf: Node, mark: Mark) -> Node:
    if not parts:
        return leaf
    head, rest = parts[0], parts[1:]
    if isinstance(node.value, list):
        if head not in map(str, range(len(node.value) + 1)):
            raise _refused(f"wanted the number of a list entry from 0 to {len(node.value)}, found {head!r}", mark)
        index = int(head)
        below = node.value[index] if index < len(node.value) else Node({}, mark)
        entries = [*node.value[:index], _assigned(below, rest, leaf, mark), *node.value[index + 1 :]]
        return Node(entries, node.mark, node.key_mark, node.base)
    mapping = node.value if isinstance(node.value, dict) else {}
    below = mapping.get(head, Node({}, mark))
    return Node({**mapping, head: _assigned(below, rest, leaf, mark)}, node.mark, node.key_mark, node.base)
