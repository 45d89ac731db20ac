"""Roots under dm-verity: each is checked against its hash tree before a guest is started from it."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from sevlaunch.doctor.preflight import check_root, with_checked_root
from sevlaunch.flows.plans import Planned


def check_roots(planned: Sequence[Planned], *, look: bool = True) -> list[Planned]:
    """See that the roots of guests are what their hash trees say, each once, so that no start has to look.

    :param look: False: believe them; the guest's kernel looks at each block that it reads.
    :raise HostError: when data or tree were changed.
    """
    seen = set()
    found = []
    for one in planned:
        verity = one.plan.boot.verity
        key = verity and (verity.sources, verity.root_hash.value)
        plan = check_root(one.plan) if look and key not in seen else with_checked_root(one.plan)
        seen.add(key)
        found.append(replace(one, plan=plan))
    return found
