"""Rules about init-data."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.profile.initdata_values import FILE, SEED
from sevlaunch.profile.model import Profile, SnpSecurity
from sevlaunch.profile.model.initdata import InitData
from sevlaunch.profile.violation import Violation

_OWN = ("algorithm", "data", "files", "bind")
_DEFAULTS = InitData()


def check_initdata(profile: Profile) -> Iterator[Violation]:
    """Every rule about it that ``profile`` breaks."""
    said, security = profile.initdata, profile.security
    if said is None:
        return
    if isinstance(security, SnpSecurity) and security.host_data is not None:
        yield Violation(
            ("security", "host_data"),
            "the digest of initdata is the launch's host_data: leave one of them out",
            (("initdata",),),
        )
    if said.file is not None:
        for key in _OWN:
            if getattr(said, key) != getattr(_DEFAULTS, key):
                yield Violation(
                    ("initdata", key), f"the file says all: leave {key} out, or write it in place of the file",
                    (("initdata", "file"),),
                )  # fmt: skip
    for name in said.data:
        if name.startswith((SEED, FILE)):
            yield Violation(
                ("initdata", "data", name), f"names that begin with {SEED} or {FILE} are those of what is bound"
            )
    if said.bind:
        yield from _bound_seed(profile, said)
    first = profile.first_boot
    if first and isinstance(first.ssh_keys, str) and said.binds_seed:
        yield Violation(
            ("first_boot", "ssh_keys"),
            f"{first.ssh_keys}: keys that are found at the start change the seed, which is bound: name them, such as "
            "ssh_keys: [id_ed25519.pub], or [] for none",
            (("initdata",),),
        )


def _bound_seed(profile: Profile, said: InitData) -> Iterator[Violation]:
    first = profile.first_boot
    if first is None:
        yield Violation(("initdata", "bind"), "the seed is bound, and there is none", (("first_boot",),))
        return
    if "first_boot" not in said.bind:
        yield Violation(
            ("initdata", "bind"), "a seed of which a part is bound is as good as none: add first_boot to bind"
        )
    if (first.network_config is not None) != ("network_config" in said.bind):
        todo = "leave it out of bind" if first.network_config is None else "add network_config to bind"
        found = "there is no first_boot.network_config" if first.network_config is None else "the guest takes it, too"
        yield Violation(("initdata", "bind"), f"{found}: {todo}", (("first_boot", "network_config"),))


def initdata_cautions(profile: Profile) -> Iterator[Violation]:
    """What its user should know."""
    if profile.initdata is not None and not isinstance(profile.security, SnpSecurity):
        yield Violation(
            ("initdata",),
            f"a guest of type {profile.security.type} has no HOST_DATA: it gets the disk, and nothing proves that the "
            "host did not change it",
        )
