"""A skip that is not known fails the session, and what is listed as known is there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import machine, needs
from tests.conftest import ROOT
from tests.known_skips import Kind, Skip, complaint, load_kinds, matches

LIST = ROOT / "tests/known-skips.toml"
KNOWN = """
[here]
machine = "such as this one"

[here.skips]
"no coffee*" = ["test_it.py::test_listed*", "test_module.py"]

[elsewhere]
machine = "such as no other"

[elsewhere.skips]
"no tea" = ["test_it.py::*"]
"""
CONFTEST = """
from pathlib import Path
from tests import known_skips

def pytest_configure(config):
    known = Path(__file__).with_name("known.toml")
    known_skips.watch(config, known, {"here": True, "elsewhere": False}.__getitem__)
"""


@pytest.mark.parametrize(
    ("pattern", "text", "result"),
    [
        ("no *", "no coffee", True),
        ("no *", "none", False),
        ("a::*", "a::test[1-b]", True),
        ("test[1]", "test[1]", True),
        ("test[1]", "test1", False),
        ("a", "ab", False),
        ("* here: *", "x is here: two\nlines", True),
    ],
)
def test_only_a_star_stands_for_other_text(pattern: str, text: str, result: bool) -> None:
    assert matches(pattern, text) == result


def test_one_kind_that_lists_it_and_is_this_machines_is_enough() -> None:
    kinds = [Kind("a", "with a", {"no x": ["t"]}), Kind("b", "with b", {"no x": ["t"]})]
    assert complaint(Skip("t", "no x"), kinds, {"a": False, "b": True}.__getitem__) == ""
    refused = complaint(Skip("t", "no x"), kinds, {"a": False, "b": False}.__getitem__)
    assert "a (with a) or b (with b)" in refused
    assert "not listed" in complaint(Skip("t", "no y"), kinds, lambda _: True)
    assert "not listed" in complaint(Skip("u", "no x"), kinds, lambda _: True)


def session(folder: Path, files: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """A session with the plugin, a list of its own, and the text of some test modules."""
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "known.toml").write_text(KNOWN)
    for name, text in files.items():
        (folder / name).write_text(f"import pytest\n{text}")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", folder, *options, folder],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


LISTED = """
def test_listed(): pytest.skip("no coffee left")

@pytest.mark.parametrize("number", [1])
@pytest.mark.skipif(True, reason="no coffee")
def test_listed_too(number): pass

@pytest.mark.xfail
def test_fails(): assert 0

def test_passes(): pass
"""
UNKNOWN = """
def test_other(): pytest.skip("no coffee")
def test_listed(): pytest.skip("no cup")
def test_tea(): pytest.skip("no tea")

@pytest.fixture
def cup(): pytest.skip("no cup")
def test_fixture(cup): pass

def test_passes(): pass
"""
NOT_LISTED = "not listed in tests/known-skips.toml"
FOR_OTHERS = "listed for machines of the kind elsewhere (such as no other); this one is none"


@pytest.fixture(params=["one process", "xdist"])
def processes(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """In one process, and with pytest-xdist."""
    return ("-n", "2") if request.param == "xdist" else ("-n", "0")


def test_a_listed_skip_and_an_expected_failure_are_fine(tmp_path: Path, processes: tuple[str, ...]) -> None:
    module = "pytest.skip('no coffee', allow_module_level=True)"
    done = session(tmp_path, {"test_it.py": LISTED, "test_module.py": module}, *processes)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped, 1 xfailed" in done.stdout
    assert "not known" not in done.stdout


def test_any_other_fails_the_session_and_is_named(tmp_path: Path, processes: tuple[str, ...]) -> None:
    files = {
        "test_it.py": UNKNOWN,
        "test_module.py": "pytest.skip('no tea', allow_module_level=True)",
        "test_import.py": "pytest.importorskip('no_such_module')",
    }
    done = session(tmp_path, files, *processes)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout
    assert "1 passed, 6 skipped" in done.stdout
    _, _, told = done.stdout.partition("skips that are not known")
    lines = [line.strip() for line in told.splitlines()[1:] if line]
    end = next(number for number, line in enumerate(lines) if line.startswith("="))
    assert dict(zip(lines[:end:2], lines[1:end:2], strict=True)) == {
        "test_import.py skipped: could not import 'no_such_module': No module named 'no_such_module'": NOT_LISTED,
        "test_it.py::test_fixture skipped: no cup": NOT_LISTED,
        "test_it.py::test_listed skipped: no cup": NOT_LISTED,
        "test_it.py::test_other skipped: no coffee": NOT_LISTED,
        "test_it.py::test_tea skipped: no tea": FOR_OTHERS,
        "test_module.py skipped: no tea": NOT_LISTED,
    }


def test_another_end_of_the_session_stays_as_it_is(tmp_path: Path) -> None:
    done = session(tmp_path, {"test_it.py": UNKNOWN, "test_broken.py": "import no_such_module"})
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout


def test_each_kind_is_decided_by_a_fact() -> None:
    kinds = [kind.name for kind in load_kinds(LIST)]
    assert sorted(kinds) == sorted(machine.KINDS)
    for name in kinds:
        assert isinstance(machine.is_of(name), bool)


def test_what_is_listed_is_there() -> None:
    """A test that was renamed or a reason that nobody gives any more would stay in the list for ever."""
    sources = {file: file.read_text() for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)}
    for kind in load_kinds(LIST):
        for reason, tests in kind.skips.items():
            longest = max(reason.split("*"), key=len)
            assert any(longest in text for text in sources.values()), f"nobody skips for {reason!r}"
            for test in tests:
                path, _, name = test.partition("::")
                files = [file for file in sources if matches(path, str(file.relative_to(ROOT)))]
                assert files, test
                function = re.compile(rf"^(async )?def {re.escape(name.rstrip('*'))}", re.MULTILINE)
                assert name in ("", "*") or any(function.search(sources[file]) for file in files), test


def reasons_in(text: str) -> Iterator[str]:
    """What a source gives pytest.skip(), with ``*`` for what is only known when it runs."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("pytest"), attr="skip"), args=[ast.Constant(str(reason))]):
                yield reason
            case ast.Call(func=ast.Attribute(value=ast.Name("pytest"), attr="skip"), args=[ast.JoinedStr(parts)]):
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)


def test_each_reason_that_a_test_gives_is_listed() -> None:
    """Whoever adds a skip says on which machines; it would else be found only on such a machine."""
    listed = [reason for kind in load_kinds(LIST) for reason in kind.skips]
    sources = [file for file in (ROOT / "tests").rglob("*.py") if file != Path(__file__)]
    given = {reason for file in sources for reason in reasons_in(file.read_text())}
    assert len(given) > 20
    # Long runs are no matter of machines.
    unlisted = {one for one in given if not any(matches(pattern, one) for pattern in listed)}
    assert unlisted == {"a long run: SEVLAUNCH_SOAK=1 or -m soak asks for it"}
    marks = [file for file in sources if re.search(r"mark\.skip(if)?\b|importorskip", file.read_text())]
    assert marks == [], "a skip is for tests.needs, or pytest.skip()"


def reasons_of_needs() -> dict[str, set[str]]:
    """For each function of tests.needs the reasons that it, or one that it calls, can give."""
    functions = {
        node.name: ast.unparse(node)
        for node in ast.parse(Path(needs.__file__).read_text()).body
        if isinstance(node, ast.FunctionDef)
    }

    def reasons(name: str) -> set[str]:
        called = set(re.findall(r"(?<!\.)\b(\w+)\(", functions[name])) & functions.keys() - {name}
        return set(reasons_in(functions[name])).union(*map(reasons, called))

    return {name: reasons(name) for name in functions}


def test_each_file_that_asks_for_something_is_listed_for_its_reasons() -> None:
    known = reasons_of_needs()
    assert known["rehearsal"] > known["kvm"] > set()
    kinds = load_kinds(LIST)
    unlisted = []
    for file in (ROOT / "tests").rglob("test_*.py"):
        name = str(file.relative_to(ROOT))
        for asked in set(re.findall(r"(?<!\w)needs\.(\w+)\(", file.read_text())):
            for reason in known[asked]:
                listed = [
                    test
                    for kind in kinds
                    for pattern, tests in kind.skips.items()
                    if matches(pattern, reason)
                    for test in tests
                ]
                if not any(matches(test.partition("::")[0], name) for test in listed):
                    unlisted.append(f"{name}: {reason}")
    assert unlisted == []


def test_the_option_watches_the_projects_own_tests() -> None:
    # Long runs are left out by their marker in CI; nobody lists them as skipped.
    test = "tests/guest/test_memory.py::test_of_8_gib_as_much_is_locked_as_was_counted"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    environment = {**os.environ, "SEVLAUNCH_SOAK": ""}
    for options, code in (((), 0), (("--known-skips",), 1)):
        done = subprocess.run(
            [*command, *options], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stdout
        assert (f"{test} skipped: a long run" in done.stdout) == bool(code)
