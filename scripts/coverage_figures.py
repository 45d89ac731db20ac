"""Line and branch coverage of each package, from what `coverage json` wrote; see scripts/test --coverage."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_COUNTED = ("covered_lines", "num_statements", "covered_branches", "num_branches")


def figures(report: Mapping[str, Any]) -> dict[str, Counter[str]]:
    """The sums of each package, and of all.

    :param report: as `coverage json` writes it, with paths that begin at the project.
    """
    found: dict[str, Counter[str]] = {}
    for file, measured in report["files"].items():
        package = "/".join(Path(file).parent.parts[:2])
        counts = Counter({name: measured["summary"][name] for name in _COUNTED})
        found.setdefault(package, Counter()).update(counts)
    return {**dict(sorted(found.items())), "all": sum(found.values(), Counter())}


def table(found: Mapping[str, Counter[str]]) -> Iterator[str]:
    """The figures as lines of text."""
    yield f"{'package':24}{'lines':>18}{'branches':>18}"
    for package, counts in found.items():
        lines = _share(counts["covered_lines"], counts["num_statements"])
        yield f"{package:24}{lines:>18}{_share(counts['covered_branches'], counts['num_branches']):>18}"


def _share(covered: int, total: int) -> str:
    # Rounded down: 100 % is all.
    return f"{covered}/{total} {covered * 1000 // total / 10:5.1f} %" if total else "none"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path, metavar="REPORT.json")
    report = json.loads(parser.parse_args().report.read_text())
    print("\n".join(table(figures(report))))


if __name__ == "__main__":
    main()
