"""What sevlaunch adds to QEMU's own start: the command, the library, and a rehearsed launch."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from benchmarks.imports import import_times
from benchmarks.measuring import (
    MEBIBYTE,
    PLAIN,
    ROOT,
    RUNTIME,
    Candidate,
    Result,
    Setting,
    Target,
    Verdict,
    alternate,
    missed,
    peak_memory,
    run_quietly,
    sevlaunch,
    summarise,
)
from sevlaunch.guest.launch import launch
from sevlaunch.host.model import Host
from sevlaunch.plan.command_line import argv, monitor_on
from sevlaunch.plan.option import rule
from sevlaunch.plan.plan import Plan
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import load

PROFILES = ROOT / "profiles"
BARE = "bare QEMU"
VIRSH = "virsh create --paused"
# Root has no session of libvirt: nobody asks in its place.
NOBODY = 65534

# An ordinary guest of libvirt, from which sevlaunch's profile is imported.
DOMAIN = """<domain type='qemu'>
  <name>bench</name>
  <memory unit='MiB'>512</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type>
    <loader readonly='yes' type='pflash'>{code}</loader><nvram template='{vars}'>{nvram}</nvram></os>
  <features><acpi/><apic/></features>
  <devices>
    <emulator>{emulator}</emulator>
    <interface type='user'><model type='virtio'/></interface>
    <serial type='pty'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class BareQemu:
    """QEMU from a minimal script: started, and asked for its status."""

    def __init__(self, plan: Plan) -> None:
        ours, theirs = socket.socketpair()
        channel = ["-chardev", f"socket,id=launcher,fd={theirs.fileno()}"]
        command = [*argv(plan), *channel, *monitor_on("launcher", plan.monitor_object, rule("bench")).argv]
        for folder in (plan.qemu_folder, plan.state_folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        theirs.close()
        self._channel = ours

    def wait_until_ready(self) -> None:
        """Ends when QMP has answered."""
        with self._channel.makefile("rwb") as stream:
            stream.readline()
            for request in (b'{"execute":"qmp_capabilities"}\n', b'{"execute":"query-status"}\n'):
                stream.write(request)
                stream.flush()
                if not stream.readline():
                    sys.exit(f"QEMU ended with {self.process.wait()}")

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        self._channel.close()


@contextmanager
def bare(plan: Plan) -> Iterator[None]:
    """The bare QEMU of a plan."""
    qemu = BareQemu(plan)
    try:
        qemu.wait_until_ready()
        yield
    finally:
        qemu.end()


@contextmanager
def launched(plan: Plan) -> Iterator[None]:
    """The same through sevlaunch's library, up to the evidence."""
    stack = AsyncExitStack()
    with asyncio.Runner() as runner:

        async def enter() -> None:
            await stack.enter_async_context(launch(plan, paused=True))

        runner.run(enter())
        try:
            yield
        finally:
            runner.run(stack.aclose())


@contextmanager
def brought_up(profile: Path) -> Iterator[None]:
    """The same through the command."""
    run_quietly(sevlaunch("up", profile, "--paused"))
    yield
    run_quietly(sevlaunch("down", profile.stem, "--now"))


class Libvirt:
    """A libvirtd of our own, which ends some time after its last connection."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._domain = folder / "bench.xml"
        names = ("HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")
        self._environment = {**os.environ, **{name: str(folder / name) for name in names}}
        for name in names:
            (folder / name).mkdir()

    def warm_up(self, domain: str) -> None:
        """Start it, and let it ask QEMU what it asks once."""
        self._domain.write_text(domain)
        if os.geteuid() == 0:
            for path in (self._folder, *self._folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        with self.created():
            pass

    @contextmanager
    def created(self) -> Iterator[None]:
        """The same guest through libvirt."""
        self._virsh("create", "--paused", self._domain)
        yield
        self._virsh("destroy", "bench")

    def _virsh(self, *arguments: str | Path) -> None:
        own = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        command = ["virsh", "-c", "qemu:///session", *arguments]
        run_quietly(command, env=self._environment, cwd=self._folder, **own)


def start(setting: Setting) -> Result:
    """A paused guest without KVM: bare, by the library, by the command, by libvirt."""
    # The system's QEMU: libvirt's user does not get at one in a home folder.
    host = Host.probe()
    with tempfile.TemporaryDirectory(prefix="sevlaunch-bench-", dir=RUNTIME) as name:
        folder = Path(name)
        domain, profile = folder / "bench.xml", folder / "bench.yaml"
        domain.write_text(_domain(host, folder))
        run_quietly(sevlaunch("import", domain, "-o", profile))
        # The command makes the variable store at the guest's first start; the others find it.
        with brought_up(profile):
            pass
        plan = resolve(load(profile), host)
        candidates: dict[str, Candidate] = {
            BARE: partial(bare, plan),
            "library launch": partial(launched, plan),
            "up --paused": partial(brought_up, profile),
        }
        targets = {
            "library launch": [Target(BARE, ratio=1.10)],
            "up --paused": [Target(BARE, more=130), Target(VIRSH, ratio=0.5)],
        }
        if shutil.which("virsh") and shutil.which("libvirtd"):
            folder.chmod(0o755)
            libvirt = Libvirt(folder / "libvirt")
            libvirt.warm_up(_domain(host, folder / "libvirt"))
            candidates[VIRSH] = libvirt.created
        else:
            print("without libvirt (--libvirt installs it)", file=sys.stderr)
        lines = summarise(alternate(candidates, setting.rounds), targets)
        return Result(lines, _resident(profile), (_imports_of_up(profile),) if missed(lines) else ())


def _domain(host: Host, folder: Path) -> str:
    found = resolve(load(PLAIN, overrides=("accel=tcg",)), host)
    return DOMAIN.format(
        emulator=found.binary.value,
        code=found.firmware.code.value,
        vars=found.firmware.vars_template,
        nvram=folder / "nvram.fd",
    )


def _imports_of_up(profile: Path) -> str:
    found = import_times(["up", str(profile), "--paused"])
    run_quietly(sevlaunch("down", profile.stem, "--now"))
    return found


def _resident(profile: Path) -> tuple[Verdict, Verdict]:
    """The peak memory of `up`, and what stays beside QEMU when it is through."""
    peak = peak_memory(sevlaunch("up", profile, "--paused"))
    stayed = [name for name in _started_here() if not name.startswith(("qemu-system", "libvirtd"))]
    run_quietly(sevlaunch("down", profile.stem, "--now"))
    return (
        Verdict("memory of up: under 60 MiB", f"{peak / MEBIBYTE:.0f} MiB", peak < 60 * MEBIBYTE),
        Verdict("resident beside QEMU for a detached guest: nothing", ", ".join(stayed) or "nothing", not stayed),
    )


def _started_here() -> list[str]:
    """The names of all processes that have the folders of this benchmark in their environment."""
    mark = os.environb[b"XDG_RUNTIME_DIR"]
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append((folder / "comm").read_text().strip())
    return found


def rehearsal(setting: Setting) -> Result:
    """What a rehearsed launch costs beside a bare start of the same guest without SEV."""
    host = Host.probe(setting.qemu)
    if not host.kvm.device.openable:
        print("rehearsal is left out: no usable /dev/kvm", file=sys.stderr)
        return Result(())
    overrides = ("memory.size=512M", "memory.lock=true", "cpu.model=EPYC-v4", f"firmware.image={setting.firmware}")
    plain = resolve(load(PROFILES / "sev.yaml", overrides=(*overrides, "security=none", "accel=kvm")), host)
    candidates: dict[str, Candidate] = {BARE: partial(bare, plain), "launch, no SEV": partial(launched, plain)}
    targets = {}
    for kind in ("sev", "sev-es", "sev-snp"):
        if kind == "sev-snp" and host.qemu and "sev-snp-guest" not in host.qemu.objects:
            print(f"sev-snp is left out: QEMU {host.qemu.version} has no sev-snp-guest (try --qemu)", file=sys.stderr)
            continue
        plan = resolve(load(PROFILES / f"{kind}.yaml", overrides=overrides), host, rehearse=True)
        candidates[f"rehearsed {kind}"] = partial(launched, plan)
        targets[f"rehearsed {kind}"] = [Target(BARE, more=60)]
    return Result(summarise(alternate(candidates, setting.rounds), targets))
