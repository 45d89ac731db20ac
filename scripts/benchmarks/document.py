"""What a section found as tables of docs/performance.md, from the figures that scripts/bench --json writes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from benchmarks.measuring import HEADINGS, Result, Verdict, row

# A point of a curve, by its number, and the bare QEMU beside it.
_POINT = re.compile(r"(\d+) (.+?)(, bare)?")


def document(section: str, result: Result) -> Iterator[str]:
    """The lines of a section in Markdown."""
    if section == "growth":
        return _curves(result)
    return _tables(result)


def _tables(result: Result) -> Iterator[str]:
    headings = HEADINGS if any(line.memory for line in result.lines) else HEADINGS[:-1]
    yield _row(*headings)
    yield _row("---", *("---:" for _ in headings[1:]))
    for line in result.lines:
        yield _row(*row(line)[: len(headings)])
    verdicts = [(f"{line.name}: {one.target}", one) for line in result.lines for one in line.verdicts]
    verdicts += [(one.target, one) for one in result.further]
    if verdicts:
        yield ""
        yield _row("target", "found", "")
        yield _row("---", "---:", "---")
    for text, verdict in verdicts:
        yield _row(text, verdict.found, "met" if verdict.met else "**missed**")
    for note in result.notes:
        yield ""
        yield f"{note}."


def _curves(result: Result) -> Iterator[str]:
    curves: dict[str, dict[int, list[float]]] = {}
    for line in result.lines:
        found = _POINT.fullmatch(line.name)
        assert found, f"{line.name} is no point of a curve"
        curves.setdefault(found[2], {}).setdefault(int(found[1]), []).append(line.median)
    for number, verdict in enumerate(result.further):
        if number:
            yield ""
        what = verdict.target.partition(":")[0]
        yield from _curve(what, curves[what], verdict)


def _curve(what: str, points: dict[int, list[float]], verdict: Verdict) -> Iterator[str]:
    yield _row(what, *map(str, points))
    yield _row("---", *("---:" for _ in points))
    for name, medians in zip(("ms", "bare QEMU"), zip(*points.values(), strict=True), strict=False):
        yield _row(name, *(f"{median:.0f}" for median in medians))
    yield ""
    # "vCPUs" is no word that begins a sentence with a capital.
    target = verdict.target if what[1].isupper() else verdict.target[0].upper() + verdict.target[1:]
    yield f"{target}: {'met' if verdict.met else '**missed**'} ({verdict.found})."


def _row(*cells: str) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
