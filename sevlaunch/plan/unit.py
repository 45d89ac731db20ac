"""A systemd unit for a guest: systemd.service(5), systemd.exec(5), systemd.resource-control(5)."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from msgspec import Struct

from sevlaunch.errors import EXIT_INTERRUPTED, ProfileError
from sevlaunch.plan.needs import Needs
from sevlaunch.plan.places import JOURNAL_SOCKET
from sevlaunch.plan.plan import Plan
from sevlaunch.text import visible
from sevlaunch.units import mebibytes

# Time for the guest to power down, and for sevlaunch to quit or kill QEMU after that.
DOWN_SECONDS = 90
AFTER_STOP_SECONDS = 30
# What sevlaunch itself takes beside QEMU, below the same limit.
OWN_MEMORY = 128 << 20

# Without an effect on what QEMU and sevlaunch do; these work in a user's systemd, too.
_HARDENING = (
    ("LockPersonality", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
)
# Beside @system-service: seccomp for QEMU's own -sandbox; mbind and set_mempolicy for memory.nodes.
_SYSTEM_CALLS = ("@system-service", "seccomp", "mbind", "set_mempolicy")
_ADDRESS_FAMILIES = ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK")
# What DevicePolicy=closed allows by itself.
_PSEUDO_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# There are rules for device files alone.
_WITHOUT_RULE = (*_PSEUDO_DEVICES, JOURNAL_SOCKET)
# With PrivateTmp=yes the unit has folders of its own in these places.
_TEMPORARY = ("/tmp/", "/var/tmp/")
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
    ("RemoveIPC", "yes"),
    ("KeyringMode", "private"),
)


class Service(Struct, frozen=True):
    """What a unit calls. ``command`` runs sevlaunch, ``arguments`` are the profile's: file, --name, --set."""

    command: tuple[str, ...]
    arguments: tuple[str, ...]
    user_manager: bool


def systemd_unit(plan: Plan, service: Service) -> str:
    """The text of the unit.

    :raise ProfileError: when a path in it has characters that systemd takes in no path.
    """
    sections = (
        ("Unit", _unit(plan)),
        ("Service", _service(plan, service)),
        ("Install", [("WantedBy", "default.target" if service.user_manager else "multi-user.target")]),
    )
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in settings) for name, settings in sections
    )


def quote(word: str) -> str:
    """A word as systemd.syntax(7) wants it: quoted, and nothing that systemd or a terminal takes for more than text."""
    plain = word.replace("%", "%%")
    if plain and all(character.isalnum() or character in "@%$+=:,./_-" for character in plain):
        return plain
    return '"' + "".join(map(_escaped, plain)) + '"'


def _escaped(character: str) -> str:
    if character in '\\"':
        return "\\" + character
    if visible(character) == character:
        return character
    # Lines end at CR and NUL, too: systemd's src/basic/fileio.c, read_line_full().
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def quote_path(path: str) -> str:
    """A path, in which systemd reads no escapes but those of quotes and backslashes.

    :raise ProfileError: when it takes others.
    """
    if visible(path) != path:
        raise ProfileError(
            f"a systemd unit can't name {visible(path)}: systemd takes no control characters in a path",
            hint="rename it",
        )
    return quote(path)


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
    stay = ("--foreground", "--down-timeout", str(DOWN_SECONDS))
    yield "ExecStart", exec_line(*service.command, "up", *service.arguments, *unlimited, *stay)
    yield "TimeoutStartSec", "infinity"
    yield "TimeoutStopSec", str(DOWN_SECONDS + AFTER_STOP_SECONDS)
    # SIGTERM, for sevlaunch alone, takes the guest down; what is left after the time above is killed.
    yield "KillMode", "mixed"
    # A start that a stop interrupts is no failure.
    yield "SuccessExitStatus", str(EXIT_INTERRUPTED)
    yield "Restart", "on-failure"
    yield "RestartSec", "5"
    needs = plan.needs
    if needs.locked_memory:
        yield "LimitMEMLOCK", str(needs.locked_memory)
    if needs.memory_limit is not None:
        yield "MemoryMax", str(needs.memory_limit + OWN_MEMORY)
        yield "MemorySwapMax", "0"
    for name, value in needs.environment:
        yield "Environment", quote(f"{name}={value}")
    yield "UMask", "0077"
    # In a user's systemd, what follows takes the rights of set-uid programs away: systemd.exec(5). Root has them.
    gains_rights = any(program.gains_rights for program in needs.programs)
    if not (gains_rights and service.user_manager):
        yield from _hardening(needs)
    if not service.user_manager:
        yield from _system(plan, needs)


def _system(plan: Plan, needs: Needs) -> Iterator[tuple[str, str]]:
    yield "RuntimeDirectory", " ".join(("sevlaunch", *needs.runtime_folders))
    yield "RuntimeDirectoryMode", "0700"
    # Other guests have their folders there, too.
    yield "RuntimeDirectoryPreserve", "yes"
    yield "StateDirectory", "sevlaunch"
    yield "StateDirectoryMode", "0700"
    yield "CacheDirectory", "sevlaunch"
    yield "Environment", "XDG_CACHE_HOME=%C"
    yield "Slice", "machine.slice"
    # Root needs no capability for its own files and devices; LimitMEMLOCK grants the locking.
    yield "CapabilityBoundingSet", " ".join(needs.capabilities)
    # Other users' processes are hidden from a root without CAP_SYS_PTRACE.
    yield "ProtectProc", "default" if plan.run_as else "invisible"
    yield "DevicePolicy", "closed"
    for device in needs.devices:
        if device.path not in _WITHOUT_RULE:
            yield "DeviceAllow", f"{quote_path(device.path)} {'rw' if device.write else 'r'}"
    if any(interface.opened for interface in needs.interfaces):
        # Its minor number is that of the interface, which is another one after each start of the host.
        yield "DeviceAllow", "char-macvtap rw"
    yield from _SYSTEM_HARDENING
    if any(file.path.startswith(_TEMPORARY) for file in needs.files):
        yield "PrivateTmp", "no"
        # Programs have their own short-lived files there, as they do with a folder of their own.
        yield "ReadWritePaths", "/tmp"
    else:
        yield "PrivateTmp", "yes"
    for file in needs.files:
        # StateDirectory covers sevlaunch's own.
        if file.write and not file.granted:
            # What is made at the start is not there yet.
            yield "ReadWritePaths", quote_path(str(PurePosixPath(file.path).parent) if file.template else file.path)


def _hardening(needs: Needs) -> Iterator[tuple[str, str]]:
    yield "NoNewPrivileges", "yes"
    yield "RestrictAddressFamilies", " ".join((*_ADDRESS_FAMILIES, *needs.address_families))
    yield "RestrictNamespaces", " ".join(needs.namespaces) or "yes"
    yield "SystemCallFilter", " ".join((*_SYSTEM_CALLS, *needs.system_calls))
    yield from _HARDENING


def exec_line(*words: str) -> str:
    """The command line of an Exec setting."""
    # Variables are expanded in Exec lines alone: systemd.service(5).
    return " ".join(quote(word.replace("$", "$$")) for word in words)


def install_hint(plan: Plan, service: Service) -> Sequence[str]:
    """How to put the unit in its place, for people."""
    name = unit_name(plan.name)
    folder = "~/.config/systemd/user" if service.user_manager else "/etc/systemd/system"
    mode = " --user" if service.user_manager else ""
    steps = [
        f"write it to {PurePosixPath(folder) / name}, then: systemctl{mode} daemon-reload && "
        f"systemctl{mode} enable --now {shlex.quote(name)}"
    ]
    if service.user_manager and plan.needs.locked_memory:
        steps.append(
            f"the user's own systemd must be allowed to lock {mebibytes(plan.needs.locked_memory)}: LimitMEMLOCK="
            f"{plan.needs.locked_memory} in a drop-in of user@.service"
        )
    return steps


def unit_name(name: str) -> str:
    """The unit's file name: systemd.unit(5) allows letters, digits and :-_.\\ alone; the rest is escaped as there."""
    escaped = "".join(
        chr(byte) if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in ":_.") else f"\\x{byte:02x}"
        for byte in name.encode()
    )
    return f"sevlaunch-{escaped}.service"
