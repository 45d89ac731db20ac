"""Scripts that lack packages, run by a user who may not install them, name the whole command for an administrator."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT

NOBODY = 65534
# dpkg-query as the scripts call it: -W -f FORMAT PACKAGE.
DPKG_QUERY = """#!/bin/sh
echo "$4" >> {asked}
case "$4" in {missing}) exit 1 ;; esac
printf installed
"""
APT = "apt-get update && apt-get install -y --no-install-recommends"


class OtherMachine:
    """The scripts on a machine that lacks packages: what is installed is asked from a dpkg-query made here."""

    def __init__(self, base: Path, missing: str) -> None:
        self.base = base
        base.chmod(0o755)
        shutil.copytree(ROOT / "scripts", base / "scripts")
        self.programs = base / "bin"
        self.programs.mkdir()
        for folder in ("/usr/sbin", "/usr/bin"):
            for program in Path(folder).iterdir():
                if program.name != "sudo" and not (self.programs / program.name).exists():
                    (self.programs / program.name).symlink_to(program)
        self.asked = base / "asked"
        self.asked.touch()
        self.asked.chmod(0o666)
        self.put("dpkg-query", DPKG_QUERY.format(asked=self.asked, missing=missing))

    def put(self, name: str, content: str) -> None:
        """A program in place of the machine's."""
        file = self.programs / name
        file.unlink(missing_ok=True)
        file.write_text(content)
        file.chmod(0o755)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """A script, run by an ordinary user."""
        become = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"] if os.geteuid() == 0 else []
        return subprocess.run(
            [*become, str(self.base / "scripts" / script)],
            env={"PATH": str(self.programs), "HOME": str(self.base)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(autouse=True)
def debian() -> None:
    """Skips by name elsewhere than on Debian and Ubuntu."""
    if shutil.which("dpkg-query") is None:
        pytest.skip("no dpkg-query: the packages named here are Debian's")


@pytest.mark.parametrize(("script", "needed"), [("quickstart", "ovmf"), ("test", "passt")])
def test_without_sudo_the_whole_command_for_an_administrator_is_named(script: str, needed: str, base: Path) -> None:
    machine = OtherMachine(base, missing="*")
    done = machine.run(script)
    assert done.returncode == 1
    assert done.stdout == ""
    packages = machine.asked.read_text().split()
    assert needed in packages
    assert {"qemu-system-x86", "python3-venv"} < set(packages)
    assert f"\n    {APT} {' '.join(packages)}\n" in done.stderr
    # Neither was anything begun.
    assert sorted(path.name for path in base.iterdir()) == ["asked", "bin", "scripts"]


def test_what_is_there_is_not_asked_for(base: Path) -> None:
    done = OtherMachine(base, missing="ovmf | shellcheck").run("test")
    assert done.returncode == 1
    assert f"\n    {APT} ovmf shellcheck\n" in done.stderr
    assert "these packages are missing, and only an administrator can install them: ovmf shellcheck\n" in done.stderr


def test_a_sudo_that_refuses_comes_to_the_same(base: Path) -> None:
    machine = OtherMachine(base, missing="ovmf")
    machine.put("sudo", "#!/bin/sh\necho 'nobody is not in the sudoers file' >&2\nexit 1\n")
    done = machine.run("quickstart")
    assert done.returncode == 1
    assert "nobody is not in the sudoers file\n" in done.stderr
    assert f"\n    {APT} ovmf\n" in done.stderr


def test_with_sudo_all_is_installed_at_once(base: Path) -> None:
    machine = OtherMachine(base, missing="ovmf | passt")
    calls = base / "calls"
    calls.touch()
    calls.chmod(0o666)
    machine.put("sudo", f'#!/bin/sh\necho "$@" >> {calls}\ncase "$*" in *install*) exit 1 ;; esac\n')
    assert machine.run("test").returncode == 1
    assert calls.read_text().splitlines() == [
        "apt-get update -qq",
        "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ovmf passt",
    ]
