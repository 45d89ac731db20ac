"""A systemd unit for a guest: systemd.service(5), systemd.exec(5), systemd.resource-control(5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from sevlaunch.plan.host_access import device_paths, written_paths
from sevlaunch.plan.plan import Plan
from sevlaunch.units import mebibytes

# Time for the guest to power down, and for sevlaunch to quit or kill QEMU after that.
STOP_SECONDS = 90
AFTER_STOP_SECONDS = 30
# What sevlaunch itself takes beside QEMU, below the same limit.
OWN_MEMORY = 128 << 20

# Without an effect on what QEMU and sevlaunch do; these work in a user's systemd, too.
_HARDENING = (
    ("LockPersonality", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("RestrictNamespaces", "yes"),
    ("SystemCallArchitectures", "native"),
    # seccomp: QEMU's own -sandbox; mbind, set_mempolicy: memory.nodes.
    ("SystemCallFilter", "@system-service seccomp mbind set_mempolicy"),
    ("SystemCallErrorNumber", "EPERM"),
    ("UMask", "0077"),
)
# These take root. Not ProtectClock: it would let the guest at the clock device, and without capabilities, and with
# the filter of system calls, nobody here sets a clock.
_SYSTEM_HARDENING = (
    ("ProtectSystem", "strict"),
    ("ProtectHome", "read-only"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("PrivateTmp", "yes"),
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
)


class Service(Struct, frozen=True):
    """What a unit calls. ``command`` runs sevlaunch, ``arguments`` are the profile's: file, --name, --set."""

    command: tuple[str, ...]
    arguments: tuple[str, ...]
    user_manager: bool


def systemd_unit(plan: Plan, service: Service) -> str:
    """The text of the unit."""
    sections = (
        ("Unit", _unit(plan)),
        ("Service", _service(plan, service)),
        ("Install", [("WantedBy", "default.target" if service.user_manager else "multi-user.target")]),
    )
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in settings) for name, settings in sections
    )


def quote(word: str) -> str:
    """A word of an Exec line as systemd.syntax(7) and systemd.service(5) want it: quoted, nothing expanded."""
    plain = word.replace("%", "%%").replace("$", "$$")
    if plain and all(character.isalnum() or character in "@%$+=:,./_-" for character in plain):
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def _unit(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "Description", f"{plan.name.replace('%', '%%')}: a {_kind(plan)} guest of sevlaunch"
    yield "After", "network.target"
    # A guest that fails at once is not started for ever.
    yield "StartLimitIntervalSec", "300"
    yield "StartLimitBurst", "5"


def _kind(plan: Plan) -> str:
    return plan.guest_type if plan.guest_type.encrypted else "plain"


def _service(plan: Plan, service: Service) -> Iterator[tuple[str, str]]:
    yield "Type", "notify"
    yield "NotifyAccess", "main"
    # The unit has the limit itself: sevlaunch need not make a cgroup.
    unlimited = ("--set", "memory.hard_limit=null") if plan.memory.limit else ()
    yield "ExecStart", _line(*service.command, "up", *service.arguments, *unlimited, "--foreground")
    # It is called after QEMU ended by itself, too, when there is nothing to take down.
    yield "ExecStop", "-" + _line(*service.command, "down", plan.name, "--timeout", str(STOP_SECONDS))
    yield "TimeoutStartSec", "infinity"
    yield "TimeoutStopSec", str(STOP_SECONDS + AFTER_STOP_SECONDS)
    yield "KillMode", "mixed"
    yield "Restart", "on-failure"
    yield "RestartSec", "5"
    if plan.memory.lock_bytes:
        yield "LimitMEMLOCK", str(plan.memory.lock_bytes)
    if plan.memory.limit:
        yield "MemoryMax", str(plan.memory.limit.size.value + OWN_MEMORY)
        yield "MemorySwapMax", "0"
    for name, value in plan.memory.environment.items():
        yield "Environment", quote(f"{name}={value}")
    yield from _hardening(plan)
    if not service.user_manager:
        yield from _system(plan)


def _system(plan: Plan) -> Iterator[tuple[str, str]]:
    yield "RuntimeDirectory", "sevlaunch"
    yield "RuntimeDirectoryMode", "0700"
    # Other guests have their folders there, too.
    yield "RuntimeDirectoryPreserve", "yes"
    yield "StateDirectory", "sevlaunch"
    yield "StateDirectoryMode", "0700"
    yield "CacheDirectory", "sevlaunch"
    yield "Environment", "XDG_CACHE_HOME=%C"
    yield "Slice", "machine.slice"
    # Root needs no capability for its own files and devices; LimitMEMLOCK grants the locking. To start QEMU as another
    # user, and to reach what belongs to that user, takes some.
    yield "CapabilityBoundingSet", "CAP_SETUID CAP_SETGID CAP_KILL CAP_DAC_OVERRIDE" if plan.run_as else ""
    # Other users' processes are hidden from a root without CAP_SYS_PTRACE.
    yield "ProtectProc", "default" if plan.run_as else "invisible"
    yield "DevicePolicy", "closed"
    for path in device_paths(plan):
        yield "DeviceAllow", f"{quote(path)} rw"
    yield from _SYSTEM_HARDENING
    for path in written_paths(plan):
        yield "ReadWritePaths", quote(path)


def _hardening(plan: Plan) -> Iterator[tuple[str, str]]:
    # qemu-bridge-helper is a set-uid program.
    if not plan.network.bridge_helper:
        yield "NoNewPrivileges", "yes"
    families = ["AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"]
    if any(path.endswith("vhost-vsock") for path in device_paths(plan)):
        families.append("AF_VSOCK")
    yield "RestrictAddressFamilies", " ".join(families)
    yield from _HARDENING


def _line(*words: str) -> str:
    return " ".join(quote(word) for word in words)


def install_hint(plan: Plan, service: Service) -> Sequence[str]:
    """How to put the unit in its place, for people."""
    name = unit_name(plan.name)
    folder = "~/.config/systemd/user" if service.user_manager else "/etc/systemd/system"
    mode = " --user" if service.user_manager else ""
    needs = [
        f"write it to {PurePosixPath(folder) / name}, then: systemctl{mode} daemon-reload && "
        f"systemctl{mode} enable --now {name}"
    ]
    if service.user_manager and plan.memory.lock_bytes:
        needs.append(
            f"the user's own systemd must be allowed to lock {mebibytes(plan.memory.lock_bytes)}: LimitMEMLOCK="
            f"{plan.memory.lock_bytes} in a drop-in of user@.service"
        )
    return needs


def unit_name(name: str) -> str:
    """The unit's file name: systemd.unit(5) allows letters, digits and :-_.\\ alone; the rest is escaped as there."""
    escaped = "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in ":_.") else f"\\x{byte:02x}"
        for byte in name.encode()
    )
    return f"sevlaunch-{escaped}.service"
