"""YAML with positions: where every value stands, which scalars there are, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sevlaunch.errors import Problem, ProfileError
from sevlaunch.profile.source import MAX_BYTES, MAX_DEPTH, Node, Text, parse, read


def nodes(content: str | bytes, problems: list[Problem] | None = None) -> Node:
    """The nodes of YAML text; mistakes go to ``problems``."""
    return parse(content, file="p.yaml", base=Path("/base"), problems=[] if problems is None else problems)


def refusal(content: str | bytes) -> str:
    """The one line that refuses the text."""
    with pytest.raises(ProfileError) as caught:
        nodes(content)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def complaints(content: str | bytes) -> list[str]:
    """What is wrong with text that can be read."""
    problems: list[Problem] = []
    nodes(content, problems)
    return [str(problem) for problem in problems]


def positions(node: Node) -> dict[str, tuple[str, str]]:
    """Each value's position and its key's, by dotted path."""
    found: dict[str, tuple[str, str]] = {}

    def walk(inner: Node, path: str) -> None:
        found[path] = (str(inner.mark), str(inner.key_mark))
        if isinstance(inner.value, dict):
            for key, child in inner.value.items():
                walk(child, f"{path}.{key}".strip("."))
        elif isinstance(inner.value, list):
            for index, child in enumerate(inner.value):
                walk(child, f"{path}.{index}")

    walk(node, "")
    return found


def test_every_value_and_every_key_has_its_line_and_column() -> None:
    text = "name: x\ncpu: {model: EPYC, count: 4}\ndisks:\n  - path: a\n    format: raw\n  - {path: b}\n"
    text += "boot:\n  order: [d, n]\n"
    assert positions(nodes(text)) == {
        "": ("p.yaml:1:1", "None"),
        "name": ("p.yaml:1:7", "p.yaml:1:1"),
        "cpu": ("p.yaml:2:6", "p.yaml:2:1"),
        "cpu.model": ("p.yaml:2:14", "p.yaml:2:7"),
        "cpu.count": ("p.yaml:2:27", "p.yaml:2:20"),
        "disks": ("p.yaml:4:3", "p.yaml:3:1"),
        "disks.0": ("p.yaml:4:5", "None"),
        "disks.0.path": ("p.yaml:4:11", "p.yaml:4:5"),
        "disks.0.format": ("p.yaml:5:13", "p.yaml:5:5"),
        "disks.1": ("p.yaml:6:5", "None"),
        "disks.1.path": ("p.yaml:6:12", "p.yaml:6:6"),
        "boot": ("p.yaml:8:3", "p.yaml:7:1"),
        "boot.order": ("p.yaml:8:10", "p.yaml:8:3"),
        "boot.order.0": ("p.yaml:8:11", "None"),
        "boot.order.1": ("p.yaml:8:14", "None"),
    }


def test_columns_count_characters_not_bytes_() -> None:
    assert str(nodes("é: {ä: 1}\n").value["é"].value["ä"].mark) == "p.yaml:1:8"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("2222:22", "2222:22"),
        ("12:30:45", "12:30:45"),
        ("0x33", 0x33),
        ("0o17", 15),
        ("017", 17),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("+5", 5),
        ("-5", -5),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("TRUE", True),
        ("False", False),
        ("tRue", "tRue"),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("=", "="),
        ("'4'", "4"),
        ('"true"', "true"),
        (".inf", ".inf"),
        ("|\n  two\n  lines", "two\nlines"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = nodes(f"key: {text}\n").value["key"].value
    assert found == value or (found == f"{value}\n" and text.startswith("|"))
    assert type(found) is type(value)


def test_text_remembers_the_folder_that_relative_paths_start_from() -> None:
    plain = nodes("a: x\nb: [y, {c: z}]\nd: 4\n").plain()
    assert plain == {"a": "x", "b": ["y", {"c": "z"}], "d": 4}
    for text in (plain["a"], plain["b"][0], plain["b"][1]["c"]):
        assert isinstance(text, Text)
        assert text.base == Path("/base")


def test_a_child_that_is_not_there_is_none() -> None:
    root = nodes("a: [1]\n")
    assert root.child("b") is None
    entries = root.child("a")
    assert entries is not None
    assert entries.child(0) is not None
    assert entries.child(1) is None
    assert entries.child(-1) is None
    assert entries.child("x") is None


def test_every_duplicate_key_is_named_with_where_it_stood_first() -> None:
    problems: list[Problem] = []
    root = nodes("a: 1\nb: {c: 1, c: 2}\na: 3\na: 4\n", problems)
    assert [str(problem) for problem in problems] == [
        "p.yaml:2:11: duplicate key 'c': it stands at p.yaml:2:5 already",
        "p.yaml:3:1: duplicate key 'a': it stands at p.yaml:1:1 already",
        "p.yaml:4:1: duplicate key 'a': it stands at p.yaml:1:1 already",
    ]
    assert root.plain() == {"a": 1, "b": {"c": 1}}


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("a: [1, 2\nb: 3\n", "p.yaml:2:2: no valid YAML:"),
        ("a: b: c\n", "p.yaml:1:5: no valid YAML:"),
        ("a:\n\t- b\n", "p.yaml:2:1: no valid YAML:"),
        ("a: 'open\n", "p.yaml:2:1: no valid YAML:"),
        ("a: *nowhere\n", "p.yaml:1:4: no valid YAML: found undefined alias"),
        ("a: 1\n---\nb: 2\n", "p.yaml:2:1: no valid YAML:"),
        ('a: "\\ud800"\n', "p.yaml:1:7: no valid YAML:"),
    ],
)
def test_a_syntax_error_has_its_position(text: str, start: str) -> None:
    assert refusal(text).startswith(start)


@pytest.mark.parametrize(
    "text",
    [
        "!!binary aGk=",
        "!!timestamp 2024-01-01",
        "!custom x",
        "!custom {a: 1}",
        "!custom [a]",
        "!!set {a, b}",
        "!!python/object/apply:os.system [id]",
        "!!bool {a: 1}",
    ],
)
def test_a_tag_that_means_something_else_is_refused_where_it_stands(text: str) -> None:
    found = complaints(f"key: {text}\n")
    assert len(found) == 1
    assert found[0].startswith("p.yaml:1:6: the YAML tag ")


def test_tags_of_the_core_schema_are_obeyed() -> None:
    root = nodes("a: !!str 5\nb: !!int '5'\nc: !!bool 'TRUE'\nd: !!map {}\ne: !!seq []\nf: !!float '1'\n")
    assert root.plain() == {"a": "5", "b": 5, "c": True, "d": {}, "e": [], "f": 1.0}


@pytest.mark.parametrize("text", ["!!int abc", "!!float abc", "!!bool maybe", "!!bool yes", "!!int 1.5"])
def test_a_tag_that_the_text_does_not_fit_is_refused(text: str) -> None:
    (found,) = complaints(f"key: {text}\n")
    assert found.startswith("p.yaml:1:6: ")
    assert " is no " in found


@pytest.mark.parametrize("text", ["9" * 5000, "0x" + "f" * 5000, "-" + "1" * 101, "1e" + "1" * 200])
def test_a_number_without_end_is_refused(text: str) -> None:
    assert complaints(f"key: {text}\n") == [f"p.yaml:1:6: wanted at most 100 digits, found {len(text)}"]
    assert complaints(f"key: {'1' * 100}\n") == []


def test_aliases_share_a_value() -> None:
    assert nodes("a: &x {b: [1]}\nc: *x\nd: [*x, *x]\n").plain() == {
        "a": {"b": [1]},
        "c": {"b": [1]},
        "d": [{"b": [1]}, {"b": [1]}],
    }


@pytest.mark.parametrize("text", ["a: &x [*x]\n", "a: &x {b: {c: *x}}\n", "&x a: &y [[*y]]\n"])
def test_an_alias_to_what_contains_it_is_refused(text: str) -> None:
    assert "an alias refers to the value that contains it" in refusal(text)


@pytest.mark.parametrize("text", ["? [a]\n: 1\n", "? {a: b}\n: 1\n"])
def test_a_key_that_is_no_text_is_refused(text: str) -> None:
    assert complaints(text) == ["p.yaml:1:3: a key must be plain text"]


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (b"name: \xff\n", "p.yaml:1:7: this is not text in UTF-8"),
        (b"name: x\ncpu: caf\xe9\n", "p.yaml:2:9: this is not text in UTF-8"),
        ("name: x\n# é\ncpu: ".encode() + b"\xe9\n", "p.yaml:3:6: this is not text in UTF-8"),
        (b"name: \xed\xa0\x80\n", "p.yaml:1:7: this is not text in UTF-8"),
        (b"name: a\0b\n", "p.yaml:1:8: this is not text in UTF-8: control characters"),
        (b"name: \x01\n", "p.yaml:1:7: this is not text in UTF-8: control characters"),
    ],
)
def test_what_is_not_utf_8_is_refused_where_it_stands(content: bytes, start: str) -> None:
    assert refusal(content).startswith(start)


def test_a_string_with_a_lone_surrogate_is_refused() -> None:
    assert refusal("name: \ud800\n").startswith("p.yaml: the text holds a lone surrogate")


def test_a_nul_that_is_written_as_an_escape_is_refused() -> None:
    assert complaints('a: x\nb: "a\\0b"\n') == [
        "p.yaml:2:4: the text holds a NUL or a lone surrogate, which no program can be given"
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing here\n"])
def test_an_empty_file_is_refused(text: str) -> None:
    assert refusal(text) == "p.yaml:1:1: the profile is empty"


@pytest.mark.parametrize("text", ["- a\n", "text\n", "5\n", "~\n", "[]\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    assert refusal(text) == "p.yaml:1:1: wanted a mapping of keys and values"


def test_windows_line_ends_do_no_harm() -> None:
    root = nodes("name: x\r\ncpus: 2\r\n")
    assert root.plain() == {"name": "x", "cpus": 2}
    assert str(root.value["cpus"].mark) == "p.yaml:2:7"


def test_a_huge_file_is_refused_without_being_parsed(tmp_path: Path) -> None:
    file = tmp_path / "huge.yaml"
    file.write_bytes(b"name: x\n" + b"#" * MAX_BYTES)
    with pytest.raises(ProfileError, match="the file is larger than 1048576 bytes"):
        read(file, [])
    file.write_bytes((b"name: x\n" + b"#" * MAX_BYTES)[:MAX_BYTES])
    assert read(file, []).plain() == {"name": "x"}


def test_a_bomb_of_aliases_ends_with_a_clear_error() -> None:
    text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for below, above in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{above}: &{above} [{','.join([f'*{below}'] * 10)}]\n"
    assert "the profile has more than 50000 values" in refusal(text)


DEEP = 10_000


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "[" * DEEP + "]" * DEEP,
        "a: " + "[" * 500_000,
        "a: " + "{b: " * DEEP + "}" * DEEP,
        "a:\n" + "- " * 200_000 + "x",
        "\n".join(" " * depth + "a:" for depth in range(1000)),
        "a: " + "[" * DEEP,
    ],
    ids=["lists", "open lists", "mappings", "dashes", "indented", "unfinished"],
)
def test_deep_nesting_is_an_error_and_no_crash(text: str) -> None:
    assert f"the values are nested more than {MAX_DEPTH} levels deep" in refusal(text)


@pytest.mark.parametrize("above", ["", "# é\r\nname: x\n"], ids=["alone", "after other lines"])
@pytest.mark.parametrize("encoding", [None, "utf-8", "utf-8-sig", "utf-16"])
def test_too_deep_a_level_is_told_where_it_starts(above: str, encoding: str | None) -> None:
    text = f"{above}a: " + "[" * DEEP
    line, column = above.count("\n") + 1, len("a: ") + MAX_DEPTH
    content = text.encode(encoding) if encoding else text
    message = f"p.yaml:{line}:{column}: the values are nested more than {MAX_DEPTH} levels deep"
    with pytest.raises(ProfileError, match=re.escape(message)):
        parse(content, file="p.yaml", base=Path(), problems=[])


def test_a_parser_with_a_limit_of_its_own_does_not_change_what_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(content: str, Loader: Any) -> Iterator[Any]:
        limit = 500
        if content.count("[") > limit:
            index = content.index("[") + limit
            raise yaml.parser.ParserError(None, None, "too deep", yaml.Mark("", index, 0, index, "", 0))
        yield from parser(content, Loader=Loader)

    parser = yaml.parse
    monkeypatch.setattr(yaml, "parse", refusing)
    assert f"the values are nested more than {MAX_DEPTH} levels deep" in refusal("a: " + "[" * DEEP)


def test_another_mistake_behind_deep_nesting_is_told_as_what_it_is() -> None:
    levels = MAX_DEPTH - 1
    assert "p.yaml:1:67: no valid YAML: " in refusal("a: " + "[" * levels + "}")


def test_nesting_up_to_the_limit_is_read() -> None:
    levels = MAX_DEPTH - 1
    assert nodes("a: " + "[" * levels + "]" * levels).value["a"].value != []
    assert f"p.yaml:1:{4 + levels}: " in refusal("a: " + "[" * (levels + 1) + "]" * (levels + 1))


def test_aliases_can_not_nest_deeper_than_text() -> None:
    text = "a: &a [x]\n"
    for index in range(1000):
        text += f"k{index}: &n{index} [[[*{f'n{index - 1}' if index else 'a'}]]]\n"
    assert f"the values are nested more than {MAX_DEPTH} levels deep" in refusal(text)


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.yaml", "No such file"), (".", "Is a directory"), ("a\0b", "null")]
)
def test_a_file_that_can_not_be_read_is_refused_with_the_reason(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=reason) as caught:
        read(tmp_path / name, [])
    assert caught.value.problems[0].location == str(tmp_path / name)
