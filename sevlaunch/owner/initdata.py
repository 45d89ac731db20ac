"""Init-data as an owner has it: what an SNP guest's report has to show of it."""

from __future__ import annotations

from pathlib import Path

from sevlaunch.errors import UsageError
from sevlaunch.files import read_bounded
from sevlaunch.profile.initdata_values import MAX_BYTES, InitDataDocument, parse_initdata


def read_initdata_file(file: Path) -> InitDataDocument:
    """The init-data in a file, in TOML or JSON; ``-`` is standard input.

    :raise UsageError: when it can't be read, or is none.
    """
    content = read_bounded(file, "init-data", MAX_BYTES)
    try:
        return parse_initdata(content)
    except ValueError as error:
        raise UsageError(f"init-data: {file}: {error}", hint="is it another file?") from error
