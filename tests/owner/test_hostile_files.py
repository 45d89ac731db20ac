"""Files from strangers: empty, cut short, random, of 4 GiB. A clear error, bounded memory, the documented exit code."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import HOSTS, Command, Result
from tests.owner.images import ovmf
from tests.owner.launches import POLICIES, write_keys
from tests.owner.spoiled import SPOILED, spoiled
from tests.owner.test_lock import KERNEL
from tests.owner.test_verify import ES

IMAGE = ovmf()
MEMORY = 1 << 30
LAUNCHED = ES.with_launch(kernel=KERNEL)

Run = Callable[..., Result]


@pytest.fixture
def run(sevlaunch: Command, base: Path) -> Run:
    """Runs an owner's command in the folder of the launch, with little memory."""
    (base / "ovmf.fd").write_bytes(IMAGE)
    (base / "kernel").write_bytes(b"kernel")
    (base / "secret").write_bytes(b"secret")
    (base / "guest.yaml").write_text(
        "cpu: {model: EPYC, count: 2}\n"
        "boot: {kernel: kernel, cmdline: console=ttyS0}\n"
        "firmware: {image: ovmf.fd}\n"
        f"security: {{type: sev-es, policy: {POLICIES['sev-es']}, kernel_hashes: true}}\n"
    )
    write_keys(base)
    LAUNCHED.write(base)

    def little_memory() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def call(*words: str, check: int) -> Result:
        result = sevlaunch("owner", *words, check=check, cwd=base, preexec_fn=little_memory)
        assert "Traceback" not in result.stderr
        return result

    return call


VERIFY = ("verify", "evidence.json", "--tik", "tik.bin", "--tek", "tek.bin", "--profile", "guest.yaml")
DIGEST = ("digest", "guest.yaml", "--host", str(HOSTS / "milan-qemu-10.0.json"))
SECRET = (
    *("secret", "--evidence", "evidence.json", "--tik", "tik.bin", "--tek", "tek.bin", "--firmware", "ovmf.fd"),
    *("--secret", "luks:secret", "--header", "header", "--payload", "payload", "--unverified"),
)

# Command, file, and the exit for each kind in the order of SPOILED: another kernel is a "no", another secret a secret,
# and the end of a profile and of a note is a line feed.
CASES = [
    (VERIFY, "evidence.json", (7, 7, 7, 7)),
    (VERIFY, "tik.bin", (2, 2, 2, 2)),
    (VERIFY, "tek.bin", (2, 2, 2, 2)),
    (VERIFY, "platform.json", (2, 0, 2, 2)),
    (VERIFY, "guest.yaml", (3, 0, 3, 3)),
    (VERIFY, "ovmf.fd", (2, 2, 2, 2)),
    (VERIFY, "kernel", (2, 1, 1, 2)),
    (DIGEST, "guest.yaml", (3, 0, 3, 3)),
    (DIGEST, "ovmf.fd", (2, 2, 2, 2)),
    (DIGEST, "kernel", (2, 0, 0, 2)),
    (SECRET, "evidence.json", (7, 7, 7, 7)),
    (SECRET, "tik.bin", (2, 2, 2, 2)),
    (SECRET, "tek.bin", (2, 2, 2, 2)),
    (SECRET, "ovmf.fd", (2, 2, 2, 2)),
    (SECRET, "secret", (2, 0, 0, 2)),
]


@pytest.mark.parametrize("command", [VERIFY, DIGEST, SECRET], ids=["verify", "digest", "secret"])
def test_with_the_right_files_it_works(command: tuple[str, ...], run: Run) -> None:
    run(*command, check=0)


@pytest.mark.parametrize(
    ("command", "name", "exits"), CASES, ids=[f"{command[0]}-{name}" for command, name, _ in CASES]
)
def test_a_spoiled_file_is_named(
    command: tuple[str, ...], name: str, exits: tuple[int, ...], run: Run, base: Path
) -> None:
    content = (base / name).read_bytes()
    for kind, code in zip(SPOILED, exits, strict=True):
        spoiled(kind, content, base / name)
        result = run(*command, check=code)
        if code > 1:
            assert name in result.stderr
            assert result.stdout == ""
        for made in ("header", "payload"):
            assert (base / made).exists() == (command is SECRET and code == 0)
            (base / made).unlink(missing_ok=True)


def test_a_large_initrd_is_hashed_in_pieces(run: Run, base: Path) -> None:
    with (base / "initrd").open("wb") as stream:
        stream.truncate(2 * MEMORY)
    run(*DIGEST, "--initrd", "initrd", check=0)
