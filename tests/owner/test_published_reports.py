"""Reports of real processors that others published, each with the certificates that came with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Command
from tests.owner.test_report_command import WAIVED
from tests.published import reports

# Folder, file, exit code, what has to be added.
CASES = [
    ("ms-turin", "report.bin", 0, ["--at", "2026-06-01", "--platform", "alias-check-complete,iommu-write-safe"]),
    ("ms-turin", "report.bin", 0, ["--at", "2026-06-01", "--mitigations", "3f", "--min-abi", "1.55"]),
    ("ms-turin", "report.bin", 1, ["--at", "2026-06-01", "--mitigations", "7f"]),
    ("routex-milan-v3", "report.bin", 0, ["--at", "2026-01-01", "--no-migration-agent"]),
    ("lunal-genoa-evidence", "report.bin", 0, ["--at", "2026-06-01", "--platform", "ecc,no-tsme"]),
    # Made at another privilege level than 0, which has to be asked for.
    ("trustee-vlek", "report.bin", 0, ["--at", "2025-06-01", "--vmpl", "1"]),
    ("trustee-vlek", "report.bin", 1, ["--at", "2025-06-01"]),
    ("trustee-vlek", "report.bin", 1, ["--at", "2026-11-01", "--any-vmpl"]),
    ("trustee-az-v2", "report.bin", 0, ["--at", "2026-01-01"]),
    ("trustee-az-v2", "hcl.bin", 0, ["--at", "2026-01-01"]),
]


@pytest.mark.parametrize(("folder", "name", "code", "more"), CASES)
def test_the_answer_about_a_published_report(
    folder: str, name: str, code: int, more: list[str], sevlaunch: Command, tmp_path: Path
) -> None:
    place = reports(folder)
    words = ["owner", "report", place / name, "--certs", place / "certs", *WAIVED, *more]
    result = sevlaunch(*words, check=code)
    assert result.stdout.splitlines()[-1] == ("no: a check fails" if code else "yes: every check holds")
    assert result.stderr == ""
    # Another's certificates never do.
    other = reports("ms-turin" if folder != "ms-turin" else "routex-milan-v3")
    sevlaunch("owner", "report", place / name, "--certs", other / "certs", *WAIVED, *more, check=1)
