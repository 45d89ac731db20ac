"""What a program writes in the documents is what it would write today."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import passages
from bench import ON_REQUEST, SECTIONS
from benchmarks.document import document
from benchmarks.measuring import Line, Result, Verdict


def test_no_passage_is_old_and_no_document_is_touched() -> None:
    before = [file.read_bytes() for file in passages.DOCUMENTS]
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/passages.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), "run scripts/passages"
    assert [file.read_bytes() for file in passages.DOCUMENTS] == before


def test_each_passage_stands_once() -> None:
    found = [name for file in passages.DOCUMENTS for _, name, *_ in passages.PASSAGE.findall(file.read_text())]
    assert sorted(found) == sorted(passages.PASSAGES)
    starts = sum(file.read_text().count("<!-- scripts/passages") for file in passages.DOCUMENTS)
    assert starts == len(found)


def test_no_placeholder_is_left() -> None:
    for file in passages.DOCUMENTS:
        assert not re.search(r"\{[A-Z_]+\}", file.read_text()), file


def test_a_passage_that_was_changed_is_renewed() -> None:
    text = (ROOT / "README.md").read_text()
    changed = text.replace("| 6 | timed out |", "| 6 | out of time |")
    assert changed != text
    assert passages.renewed(changed) == text
    with pytest.raises(KeyError, match="no such passage"):
        passages.renewed("<!-- scripts/passages writes this: no such passage -->\n<!-- end -->\n")


def test_an_exit_code_without_a_meaning_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(passages.EXIT_CODES, 7)
    with pytest.raises(SystemExit, match=r"EXIT_CODES has .*, the errors .* 7,"):
        list(passages.exit_codes())


def test_the_figures_are_those_of_a_run() -> None:
    figures = json.loads((ROOT / passages.PERFORMANCE).read_text())
    assert sorted(figures) == sorted((*SECTIONS, *ON_REQUEST))


def test_a_section_becomes_tables() -> None:
    verdict = Verdict("at most 2 of a", "3.00", False)
    lines = (Line("a", 1.04, 0.1, 1, (), 8 << 20), Line("b", 3.12, 0.2, 3, (verdict,)))
    found = document("commands", Result(lines, (Verdict("memory: little", "none", True),), ("a note",)))
    assert list(found) == [
        "| | ms | spread | ratio | MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| a | 1.0 | 0.1 | 1.00 | 8 |",
        "| b | 3.1 | 0.2 | 3.00 | |",
        "",
        "| target | found | |",
        "| --- | ---: | --- |",
        "| b: at most 2 of a | 3.00 | **missed** |",
        "| memory: little | none | met |",
        "",
        "a note.",
    ]


def test_curves_become_rows() -> None:
    medians = {"1 x y": 4, "1 x y, bare": 2, "5 x y": 8, "5 x y, bare": 3}
    lines = [Line(name, median, 0, 0, ()) for name, median in medians.items()]
    verdict = Verdict("x y: no worse than linear", "8 ms", True)
    assert list(document("growth", Result(tuple(lines), (verdict,)))) == [
        "| x y | 1 | 5 |",
        "| --- | ---: | ---: |",
        "| ms | 4 | 8 |",
        "| bare QEMU | 2 | 3 |",
        "",
        "X y: no worse than linear: met (8 ms).",
    ]
