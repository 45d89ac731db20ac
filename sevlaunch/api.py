"""The library: what programs that embed sevlaunch use. Names here stay; everything else may change.

::

    profile = Profile.load("guest.yaml")
    async with launch(plan(profile, Host.probe())) as guest:
        await guest.console.expect("login:")

Nothing here installs signal handlers, configures logging or keeps global state. Every ``await`` may be cancelled: what
was begun is undone.
"""

from __future__ import annotations

from sevlaunch.errors import (
    EvidenceError,
    GuestBusy,
    GuestEnded,
    GuestNotFound,
    GuestTimeout,
    HostError,
    InsecureUse,
    NameTaken,
    Problem,
    ProfileError,
    QemuError,
    QmpError,
    SevlaunchError,
    UnsupportedError,
    UsageError,
)
from sevlaunch.evidence import Evidence, SevInfo
from sevlaunch.guest.guest import Guest, LaunchedGuest
from sevlaunch.guest.launch import launch
from sevlaunch.guest.process import Process, spawn
from sevlaunch.guest.serial import Console
from sevlaunch.guest.starting import Spawner
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv as render
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve as plan
from sevlaunch.profile.loader import LoadedProfile as Profile

__all__ = [
    "Console",
    "Evidence",
    "EvidenceError",
    "Guest",
    "GuestBusy",
    "GuestEnded",
    "GuestNotFound",
    "GuestTimeout",
    "Host",
    "HostError",
    "InsecureUse",
    "LaunchedGuest",
    "NameTaken",
    "Plan",
    "Problem",
    "Process",
    "Profile",
    "ProfileError",
    "QemuError",
    "QmpError",
    "SevInfo",
    "SevlaunchError",
    "Spawner",
    "UnsupportedError",
    "UsageError",
    "launch",
    "plan",
    "render",
    "spawn",
]
