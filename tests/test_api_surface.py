"""The public names: pinned, in order, the same in both modules, and imported no sooner than they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sevlaunch import api, errors, sync
from sevlaunch.cli.commands import COMMANDS as INDEX
from sevlaunch.cli.commands import GROUPS, IMAGE, OWNER
from tests.conftest import ROOT, Command
from tests.guest.support import PLAIN

PINNED = (ROOT / "tests/guest/public-names.txt").read_text().split()


def imported_for_types(file: Path) -> set[str]:
    """What a module imports below ``if TYPE_CHECKING``."""
    blocks = [node for node in ast.parse(file.read_bytes()).body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name
        for block in blocks
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize(("module", "own"), [(api, set()), (sync, {"attach"})], ids=["api", "sync"])
def test_the_names_are_pinned_ordered_and_known_to_type_checkers(module: object, own: set[str]) -> None:
    names = module.__all__  # type: ignore[attr-defined]
    assert names == sorted({*PINNED, *own})
    assert imported_for_types(Path(module.__file__ or "")) == set(names)  # type: ignore[attr-defined]
    for name in names:
        assert getattr(module, name) is not None
    assert set(names) <= set(dir(module))
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense  # type: ignore[attr-defined]  # noqa: B018


def test_each_name_is_what_its_type_is_taken_from() -> None:
    tree = ast.parse(Path(api.__file__).read_bytes())
    [block] = [node for node in tree.body if isinstance(node, ast.If) and len(node.body) > 5]
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module
        module = __import__(node.module, fromlist=["x"])
        for alias in node.names:
            assert getattr(api, alias.asname or alias.name) is getattr(module, alias.name), alias.name


def test_every_error_can_be_caught_by_its_public_name() -> None:
    public = {
        name
        for name, found in vars(errors).items()
        if isinstance(found, type) and issubclass(found, (errors.SevlaunchError, errors.Problem))
    }
    assert public <= set(api.__all__) and public <= set(sync.__all__)


def test_what_blocks_is_no_coroutine() -> None:
    for name in set(sync.__all__) - {"attach"}:
        same = getattr(sync, name) is getattr(api, name)
        assert same != (name in sync._BLOCKING), name


IMPORTS = [
    ("import sevlaunch", {"sevlaunch"}, set()),
    ("import sevlaunch.api", {"sevlaunch.api"}, {"asyncio", "msgspec", "cryptography", "yaml"}),
    ("from sevlaunch.api import SevlaunchError", {"sevlaunch.errors"}, {"asyncio", "msgspec", "sevlaunch.guest"}),
    ("from sevlaunch.api import Host, Profile, plan, render", set(), {"asyncio", "cryptography", "sevlaunch.owner"}),
    ("from sevlaunch.api import launch", set(), {"cryptography", "sevlaunch.owner", "sevlaunch.flows", "typer"}),
    ("from sevlaunch.sync import verify_launch, parse_claims", set(), {"asyncio", "qemu", "sevlaunch.guest", "typer"}),
    ("from sevlaunch.sync import verify_report", {"cryptography"}, {"asyncio", "qemu", "sevlaunch.guest"}),
]


@pytest.mark.parametrize(("statement", "there", "not_there"), IMPORTS, ids=[entry[0] for entry in IMPORTS])
def test_only_what_is_used_is_imported(statement: str, there: set[str], not_there: set[str]) -> None:
    program = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert there <= loaded
    assert not not_there & loaded


# The list of the commands is made without any of them.
NO_COMMAND = {
    "sevlaunch.cli.output",
    *(f"sevlaunch.cli.{module}" for module in (*INDEX, *GROUPS[IMAGE], *GROUPS[OWNER])),
}
COMMANDS = [
    (("--help",), {"asyncio", "msgspec", "json", *NO_COMMAND}),
    (("owner", "--help"), {"asyncio", "msgspec", "json", *NO_COMMAND}),
    (("policy", "0x33"), {"asyncio", "msgspec", "yaml", "cryptography"}),
    (("check", PLAIN), {"asyncio", "cryptography", "sevlaunch.plan", "sevlaunch.host", "sevlaunch.guest"}),
    (("render", PLAIN), {"asyncio", "cryptography", "sevlaunch.guest", "sevlaunch.owner", "sevlaunch.doctor"}),
    (("ps",), {"yaml", "cryptography", "sevlaunch.profile", "sevlaunch.owner", "sevlaunch.host.facts"}),
    (("down", "--all"), {"yaml", "cryptography", "sevlaunch.profile", "sevlaunch.owner", "sevlaunch.host.facts"}),
    (("logs", "x"), {"qemu", "yaml", "cryptography", "sevlaunch.profile", "sevlaunch.owner"}),
    (
        ("owner", "compare", "x", "y"),
        {"asyncio", "cryptography", "sevlaunch.plan", "sevlaunch.guest", "sevlaunch.host"},
    ),
    (("owner", "report", "x"), {"asyncio", "sevlaunch.plan", "sevlaunch.guest", "sevlaunch.host"}),
    (("owner", "session", "--pdh", "x", "--policy", "0x33"), {"asyncio", "sevlaunch.plan", "yaml"}),
]


@pytest.mark.parametrize(("words", "not_there"), COMMANDS, ids=[" ".join(map(str, entry[0][:2])) for entry in COMMANDS])
def test_a_command_imports_only_what_it_uses(
    words: tuple[str | Path, ...], not_there: set[str], sevlaunch: Command
) -> None:
    program = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
        "from sevlaunch.cli.main import main; sys.argv[0] = 'sevlaunch'; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=sevlaunch.environment,
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert "sevlaunch.cli.app" in loaded, done.stderr
    assert not not_there & loaded
