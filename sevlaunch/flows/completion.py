"""What a plan has only once files are read: init-data, which binds some, and the ID block with the launch's digest.

A plan is made without reading files, and the digest is the guest owner's affair, which stands above plans. So a plan
that has either made is completed here, and all others are left as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from sevlaunch.errors import UsageError
from sevlaunch.plan.option import Choice, Reason
from sevlaunch.plan.plan import Plan
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.profile.model import SnpSecurity

if TYPE_CHECKING:
    from sevlaunch.host.model import Host
    from sevlaunch.plan.initdata import InitDataPlan


def complete_plan(loaded: LoadedProfile, plan: Plan, host: Host) -> Plan:
    """The plan of ``loaded`` for ``host`` with all that its command line says.

    :raise UsageError: when a file that is measured or bound, or a key, can't be read.
    :raise HostError: when a file of the seed can't be read.
    """
    if plan.initdata and plan.initdata.document is None:
        plan = _with_initdata(loaded, plan, plan.initdata)
    security = loaded.profile.security
    if plan.complete or not isinstance(security, SnpSecurity):
        return plan
    return _with_id_block(loaded, security, plan, host)


def _with_initdata(loaded: LoadedProfile, plan: Plan, initdata: InitDataPlan) -> Plan:
    # Few guests have any.
    from sevlaunch.image.initdata import initdata_document
    from sevlaunch.plan.security import SnpProperties
    from sevlaunch.profile.initdata_values import parse_initdata

    document = initdata_document(loaded.profile)
    plan = replace(plan, initdata=replace(initdata, document=document))
    security = plan.security
    if security is None or not isinstance(security.own, SnpProperties):
        return plan
    found = parse_initdata(document)
    why = Reason(initdata.wanted.kind, f"{initdata.wanted.text}: {found.algorithm} of the init-data")
    own = replace(security.own, host_data=Choice(found.host_data, why))
    return replace(plan, security=replace(security, own=own))


def _with_id_block(loaded: LoadedProfile, security: SnpSecurity, plan: Plan, host: Host) -> Plan:
    # Few launches have one made.
    from sevlaunch.owner.identity import id_block_of
    from sevlaunch.owner.setup import Options, resolve_setup
    from sevlaunch.plan.security import SnpProperties

    properties = plan.security
    assert properties and isinstance(properties.own, SnpProperties) and properties.own.identity
    setup = resolve_setup(loaded, Options(), plan=plan, host=host)
    (digest,) = setup.digests().values()
    signed = id_block_of(security, digest, setup.policy)
    assert signed, "the profile asks for one"
    why = properties.own.identity.reason(signed.id_key_digest)
    own = replace(
        properties.own,
        id_block=Choice(signed.block.to_bytes(), why),
        id_auth=Choice(signed.authentication.to_bytes(), why),
    )
    return replace(plan, security=replace(properties, own=own))


def check_id_block(loaded: LoadedProfile, plan: Plan) -> None:
    """See that the ID block of a plan is that of the plan's own launch.

    :raise UsageError: when there is none, or the processor would refuse the launch.
    """
    from sevlaunch.owner.lock import lock_plan
    from sevlaunch.sevapi.id_block import IdBlock

    security = plan.security
    content = getattr(security.own, "id_block", None) if security else None
    if security is None or content is None:
        raise UsageError(
            f"{plan.name} has no ID block: nobody compares its launch before it runs",
            hint="security.id_block: anonymous; then the processor refuses any other launch",
        )
    block, lock = IdBlock.from_bytes(content.value), lock_plan(loaded, plan)
    expected = lock.expectation()
    if block.digest not in expected.digests.values():
        raise UsageError(
            f"{plan.name}: the ID block is of the launch {block.digest.hex()}, and the plan's is "
            f"{', '.join(digest.hex() for digest in expected.digests.values())}",
            hint="sign the digest of this plan: sevlaunch owner digest; or security.id_block: anonymous",
        )
    if block.policy != expected.policy:
        raise UsageError(
            f"{plan.name}: the ID block is for the policy {block.policy:#x}, and the plan's is {expected.policy:#x}",
            hint="sign it with --policy, or change security.policy",
        )
