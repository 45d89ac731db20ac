"""What QEMU may lock and take of the host's memory: limits, compared with what is counted for this guest."""

from __future__ import annotations

from msgspec import Struct

from sevlaunch.plan.context import Context
from sevlaunch.plan.footprint import Footprint, certain, charged, locked, pinned
from sevlaunch.plan.option import Choice, rule
from sevlaunch.units import format_size, mebibytes


class MemoryLimit(Struct, frozen=True):
    """A limit on all that QEMU takes: a cgroup below ``parent`` (a folder), or else a scope that systemd makes."""

    size: Choice[int]
    counted: Footprint
    parent: str
    scope: tuple[str, ...]


def lock_limit(context: Context, accel: str, lock: bool) -> Footprint | None:
    """What RLIMIT_MEMLOCK has to allow, None if nothing is locked or pinned; a limit that is too low is noted."""
    need = _to_lock(context, accel, lock)
    if need:
        _check_lock_limit(context, need)
    return need


def _to_lock(context: Context, accel: str, lock: bool) -> Footprint | None:
    if lock:
        return locked(context, accel)
    # A rehearsal's memory is pinned by nobody.
    if context.profile.security.locks_memory and not context.rehearse:
        return pinned(context)
    return None


def _check_lock_limit(context: Context, need: Footprint) -> None:
    limits = context.host.memory
    # CAP_IPC_LOCK, which makes the limit meaningless, does not outlast the change to another user.
    may_raise = limits.can_set_limits if context.other_user else limits.can_raise_memlock
    if limits.memlock_hard is None or need.total <= limits.memlock_hard or may_raise:
        return
    user, size = context.other_user or context.host.user, need.total
    if not context.profile.security.encrypted:
        huge = "or use memory: {hugepages: 2M}, which needs no locking"
    elif context.profile.memory.hugepages:
        huge = "or start it as root"
    else:
        huge = f"or use memory: {{hugepages: 2M}}, of which KVM still pins {mebibytes(pinned(context).total)}"
    context.lack(
        f"locking {mebibytes(size)} of memory is over this user's limit of {mebibytes(limits.memlock_hard)} "
        f"(RLIMIT_MEMLOCK): {need}",
        hint=f"grant it with '{user} hard memlock {size // 1024}' in /etc/security/limits.conf, with "
        f"LimitMEMLOCK={size} in a systemd unit, {huge}",
    )


def hard_limit(context: Context, accel: str, lock: bool) -> MemoryLimit | None:
    """The limit on all that QEMU takes, where the profile asks for one; one that must kill the guest is noted."""
    wanted = context.profile.memory.hard_limit
    if wanted is None:
        return None
    counted = charged(context, accel, lock)
    if wanted == "auto":
        size = Choice(counted.total, rule("as much as QEMU can take, counted"))
    else:
        size = context.choice(wanted, "memory", "hard_limit")
        least = certain(context)
        if wanted < least.total:
            context.refuse(
                f"a limit of {mebibytes(wanted)} kills a guest that uses its memory: QEMU takes at least {least}",
                "memory",
                "hard_limit",
                hint=f"use hard_limit: auto, or at least {mebibytes(counted.total).replace(' MiB', 'M')}",
            )
        elif wanted < counted.total:
            context.warn(f"memory.hard_limit {mebibytes(wanted)} can kill the guest: at the worst QEMU takes {counted}")
    cgroup = context.host.memory.cgroup
    scope: tuple[str, ...] = ()
    if cgroup.systemd:
        mode = ("--user",) if cgroup.systemd == "user" else ()
        properties = ("-p", f"MemoryMax={size.value}", "-p", "MemorySwapMax=0")
        scope = ("systemd-run", *mode, "--scope", "--quiet", "--collect", *properties, "--")
    elif not cgroup.parent:
        context.lack(
            f"memory.hard_limit needs a cgroup for QEMU: {cgroup.parent_problem or 'this host was saved without it'}",
            hint="run it under systemd, or as root with cgroup v2; or leave hard_limit out and limit the whole of it "
            f"from outside (MemoryMax={size.value})",
        )
    return MemoryLimit(size, counted, "" if scope else cgroup.parent, scope)


def check_host(context: Context, accel: str, lock: bool) -> None:
    """Note a problem where the host has not so much, and a warning where the cgroup of this process has not."""
    counted = charged(context, accel, lock)
    memory, host = context.profile.memory, context.host.memory
    stays = lock or memory.prealloc is True or context.profile.security.encrypted
    there = host.total if stays else host.total + host.swap
    if host.total and memory.size > there and not memory.hugepages:
        swapped = "" if stays or not host.swap else f" and {format_size(host.swap)} of swap space"
        context.lack(
            f"memory.size asks for {mebibytes(memory.size)}, and this host has {mebibytes(host.total)}{swapped}",
            hint="use less, or another host",
        )
    cgroup = context.host.memory.cgroup
    if cgroup.limit is not None and cgroup.limit < counted.total:
        context.warn(
            f"the memory limit of {mebibytes(cgroup.limit)} in {cgroup.limited_by} can kill the guest, which can take "
            f"{counted}"
        )
