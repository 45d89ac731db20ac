"""The layers of the house: imports point downwards, and no two files import each other, not even for types."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import sevlaunch

PACKAGE = Path(sevlaunch.__file__).parent

# From the ground floor up. A row's rooms import from lower rows and from rooms further left in their own row.
ROWS = (
    (
        *("guest_type", "remedies", "text", "units", "errors", "atomic", "origin"),
        *("opening", "qcow2", "verity", "files", "documents", "ports", "evidence", "image_reference", "contents"),
    ),
    ("sevapi",),
    ("profile", "host"),
    ("libvirt", "image", "plan", "doctor"),
    ("guest", "owner"),
    ("rehearsal", "flows"),
    ("api", "blocking", "sync"),
    ("cli", "testing", "__main__"),
)
HEIGHT = {room: (row, column) for row, rooms in enumerate(ROWS) for column, room in enumerate(rooms)}


def modules(package: Path) -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for file in package.rglob("*.py"):
        parts = file.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(known: Mapping[str, Path]) -> dict[str, set[str]]:
    """What each module imports of the package, at its top, inside functions and for types alike."""
    return {name: set(_imported(file, known)) - {name} for name, file in known.items()}


def _imported(file: Path, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{file}: a relative import hides which room it is from"
            for alias in node.names:
                dotted = f"{node.module}.{alias.name}"
                if dotted in known:
                    yield dotted
                elif node.module in known:
                    yield node.module


def room(module: str) -> str:
    """The package below sevlaunch, or the file beside them."""
    return module.split(".")[1] if "." in module else module


def upward_imports(graph: Mapping[str, set[str]]) -> list[str]:
    """The imports that point upwards, or to a room that DESIGN.md does not have."""
    found = []
    for importer, imported in graph.items():
        for other in imported:
            here, there = room(importer), room(other)
            if here == there or here == "sevlaunch" or there == "sevlaunch":
                continue
            if here not in HEIGHT or there not in HEIGHT:
                found.append(f"{importer} imports {other}: a room without a place in ROWS")
            elif HEIGHT[there] > HEIGHT[here]:
                found.append(f"{importer} imports {other}, which stands above it")
    return sorted(found)


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other, as a way round; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def planted(folder: Path, file: str, line: str) -> dict[str, set[str]]:
    """The imports of a copy of the package in which ``file`` has one further line."""
    copy = folder / "sevlaunch"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / file).open("a") as stream:
        stream.write(f"\n{line}\n")
    return imports(modules(copy))


def test_imports_point_downwards() -> None:
    assert upward_imports(imports(modules(PACKAGE))) == []


def test_no_two_files_import_each_other() -> None:
    assert circle(imports(modules(PACKAGE))) == []


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    graph = planted(tmp_path, "host/memory.py", "def late():\n    from sevlaunch.guest.process import Process")
    assert upward_imports(graph) == ["sevlaunch.host.memory imports sevlaunch.guest.process, which stands above it"]


def test_a_circle_for_types_alone_is_found(tmp_path: Path) -> None:
    line = "if TYPE_CHECKING:\n    from sevlaunch.host.model import Host"
    assert {"sevlaunch.host.model", "sevlaunch.host.facts"} <= set(circle(planted(tmp_path, "host/facts.py", line)))


def test_a_room_that_the_design_does_not_have_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "sevlaunch"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "attic").mkdir()
    (copy / "attic" / "box.py").write_text("from sevlaunch.errors import SevlaunchError\n")
    assert upward_imports(imports(modules(copy))) == [
        "sevlaunch.attic.box imports sevlaunch.errors: a room without a place in ROWS"
    ]


def test_packages_hold_no_logic_of_their_own() -> None:
    """An ``__init__.py`` has a docstring, imports and ``__all__``; the package's own has its version, too."""
    wrong = []
    for file in PACKAGE.rglob("__init__.py"):
        for node in ast.parse(file.read_bytes()).body:
            names = (
                [target.id for target in node.targets if isinstance(target, ast.Name)]
                if isinstance(node, ast.Assign)
                else []
            )
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not (
                docstring or isinstance(node, ast.Import | ast.ImportFrom) or names in (["__all__"], ["__version__"])
            ):
                wrong.append(f"{file.relative_to(PACKAGE)}:{node.lineno}")
    assert wrong == []


def test_no_module_has_more_than_400_lines() -> None:
    """One idea each: what grows over it has two."""
    long = {str(file.relative_to(PACKAGE)): len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {name: lines for name, lines in long.items() if lines > 400} == {}
