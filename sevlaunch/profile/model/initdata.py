"""Init-data: what an SNP guest's reports vouch for beside its measurement."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from sevlaunch.profile.fields import AbsolutePath, Parser, matching
from sevlaunch.profile.initdata_values import SEED, parse_initdata, read_initdata
from sevlaunch.profile.model.base import Model

_NAME = r"[A-Za-z0-9_.-][A-Za-z0-9_./-]{0,254}"
_Name = Annotated[str, matching(_NAME, wanted="a name of letters, digits, and the signs _ . - /")]
InitDataFile = Annotated[
    bytes, Parser(read_initdata), Meta(description="a file in TOML or JSON, which is taken as it is")
]


class InitData(Model, frozen=True, kw_only=True):
    """A document that the guest gets on a read-only disk, and whose digest is the launch's host_data."""

    file: InitDataFile | None = None
    algorithm: Annotated[
        Literal["sha-256", "sha-384", "sha-512"], Meta(description="of the document's digest; host_data has 32 bytes")
    ] = "sha-256"
    data: Annotated[dict[_Name, str], Meta(description="texts by their names, such as aa.toml or policy.rego")] = {}
    files: Annotated[
        dict[_Name, AbsolutePath],
        Meta(description="files of which the SHA-256 is bound: the data has them as file/NAME, without their content"),
    ] = {}
    bind: Annotated[
        list[Literal["first_boot", "network_config"]],
        Meta(
            description="what of the seed is bound by its SHA-256, for the guest's own check; first_boot: user data "
            "and meta data"
        ),
    ] = []

    @property
    def binds_seed(self) -> bool:
        """Whether the first boot's seed is bound: by ``bind``, or by who wrote the document that ``file`` is."""
        if self.file is None:
            return bool(self.bind)
        return any(name.startswith(SEED) for name in parse_initdata(self.file).data)
