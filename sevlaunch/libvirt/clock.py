"""The guest's clock, and the sleep states, these as arguments for QEMU."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

from sevlaunch.libvirt.conversion import Conversion, number
from sevlaunch.libvirt.document import Element, Part

# (timer, attribute, value) -> QEMU's arguments; libvirt's src/qemu/qemu_command.c, qemuBuildClockCommandLine().
_TIMERS = {
    ("pit", "tickpolicy", "delay"): ("-global", "kvm-pit.lost_tick_policy=delay"),
    ("pit", "tickpolicy", "discard"): ("-global", "kvm-pit.lost_tick_policy=discard"),
}
# (timer, present) -> the CPU property.
_PARAVIRTUAL = {"kvmclock": "kvmclock", "hypervclock": "hv-time"}


def import_clock(conversion: Conversion) -> None:
    """clock with its timers, and pm."""
    clock, outcomes = conversion.domain.child("clock"), conversion.outcomes
    timers = list(clock.all("timer"))
    catch_up = [timer for timer in timers if timer.get("name") == "rtc" and timer.get("tickpolicy") == "catchup"]
    offset = clock.get("offset")
    if offset == "localtime":
        outcomes.carry(("clock", "base"), "localtime", clock.part("offset") or Part(clock))
    elif offset in ("utc", None):
        outcomes.same(clock.part("offset"), "QEMU's clock shows UTC")
    elif offset == "absolute" and (start := _time(clock.get("start"))):
        outcomes.carry(("clock", "base"), start, clock.part("offset") or Part(clock), clock.part("start"))
    else:
        outcomes.unsupported(clock.part("offset"), "the clock starts with UTC, local time, or the time of clock.base")
    for timer in catch_up:
        outcomes.carry(("clock", "catch_up"), True, timer.part("tickpolicy") or Part(timer))
    for timer in timers:
        _timer(conversion, timer)
    q35 = "q35" in str(outcomes.values[("machine",)].value)
    chipset = "ICH9-LPC" if q35 else "PIIX4_PM"
    for name, disable in (("suspend-to-mem", "disable_s3"), ("suspend-to-disk", "disable_s4")):
        state = conversion.domain.child("pm").child(name)
        part = state.part("enabled")
        if part and state.get("enabled") in ("yes", "no"):
            value = 0 if state.get("enabled") == "yes" else 1
            conversion.arguments(part, "-global", f"{chipset}.{disable}={value}")


def _time(seconds: str | None) -> str:
    """A time since 1970 as clock.base has it, or nothing."""
    count = number(seconds)
    with suppress(OverflowError, ValueError, OSError):
        if count is not None and count >= 0:
            return datetime.fromtimestamp(count, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return ""


def _timer(conversion: Conversion, timer: Element) -> None:
    name, present = str(timer.get("name")), timer.get("present")
    outcomes = conversion.outcomes
    arguments = _TIMERS.get((name, "tickpolicy", str(timer.get("tickpolicy"))))
    tick_policy = timer.part("tickpolicy")
    if arguments and tick_policy:
        conversion.arguments(tick_policy, *arguments)
    elif name == "rtc":
        outcomes.same(tick_policy, "see clock.catch_up")
    if name in _PARAVIRTUAL and present in ("yes", "no"):
        state = "on" if present == "yes" else "off"
        conversion.cpu_feature(timer.part("present"), f"{_PARAVIRTUAL[name]}={state}")
    elif name == "tsc" and (timer.get("frequency") or "").isascii() and (timer.get("frequency") or "").isdigit():
        conversion.cpu_feature(timer.part("frequency"), f"tsc-frequency={timer.get('frequency')}")
    elif name == "hpet" and present == "no":
        outcomes.carry(("clock", "hpet"), False, timer.part("present") or Part(timer))
    elif present == "yes" or (present is None and tick_policy):
        outcomes.same(timer.part("present"), "the machine has it")
    outcomes.same(timer.part("name"), "names the timer")
