"""Channels between the guest and programs of the host, and the TPM."""

from __future__ import annotations

import re

from sevlaunch.libvirt.conversion import Conversion
from sevlaunch.libvirt.document import Element, Part
from sevlaunch.profile.device_rules import AGENT_CHANNEL, SPICE_CHANNEL

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TPM_MODELS = {"tpm-tis": "tis", "tpm-crb": "crb", None: "tis"}


def import_channels(conversion: Conversion) -> None:
    """channel; the display is known by now."""
    for channel in conversion.devices.all("channel"):
        name = channel.child("target").get("name") or ""
        if name == AGENT_CHANNEL:
            _agent(conversion, channel)
        elif reason := _impossible(conversion, channel, name):
            conversion.outcomes.unsupported(channel, reason)
        else:
            key = conversion.next("channels")
            conversion.outcomes.carry((*key, "name"), name, channel.child("target").part("name"))
            conversion.outcomes.same(channel.child("target").part("type"), "a virtio-serial port")
            where = "SPICE's own end" if name == SPICE_CHANNEL else f"the socket port{key[1]}.sock"
            conversion.outcomes.drop(channel, f"its end on the host is {where} in the guest's runtime folder")


def _agent(conversion: Conversion, channel: Element) -> None:
    outcomes = conversion.outcomes
    if conversion.encrypted:
        reason = "an agent would run commands of the untrusted host; guest_agent: true where you want that"
        outcomes.unsupported(channel, reason)
    elif ("guest_agent",) in outcomes.values:
        outcomes.unsupported(channel, "one channel for the agent")
    else:
        outcomes.carry(("guest_agent",), True, channel.child("target").part("name"))
        outcomes.drop(channel, "the channel is a socket in the guest's folder")


def _impossible(conversion: Conversion, channel: Element, name: str) -> str:
    """Why a channel stays behind, or nothing."""
    kind, target = channel.get("type"), channel.child("target").get("type")
    display = conversion.outcomes.values.get(("display", "type"))
    taken = [origin.value for key, origin in conversion.outcomes.values.items() if key[0] == "channels"]
    if target != "virtio":
        return f"no {target} channels: a virtio-serial port has a name, and a socket on the host"
    if not _NAME.fullmatch(name):
        return "a channel needs a name of letters, digits, dots, dashes and underscores"
    if name in taken:
        return "one channel of each name"
    if name == SPICE_CHANNEL and not (kind == "spicevmc" and display is not None and display.value == "spice"):
        return "SPICE's channel leads to display: spice, and there is none"
    if name != SPICE_CHANNEL and kind not in ("unix", "pty"):
        return f"its end on the host is a socket in the guest's folder, no {kind}"
    return ""


def import_tpm(conversion: Conversion) -> None:
    """tpm: the first one that is emulated."""
    outcomes = conversion.outcomes
    for tpm in conversion.devices.all("tpm"):
        backend, model = tpm.child("backend"), _TPM_MODELS.get(tpm.get("model"))
        if ("tpm", "model") in outcomes.values:
            outcomes.unsupported(tpm, "one TPM")
        elif backend.get("type") != "emulator" or model is None:
            outcomes.unsupported(tpm, f"no {tpm.get('model')} by {backend.get('type')}: swtpm emulates one (tpm: true)")
        elif backend.get("version") not in ("2.0", None, "default"):
            outcomes.unsupported(tpm, f"no TPM {backend.get('version')}: tpm: true is version 2.0")
        else:
            reason = "" if tpm.get("model") else "libvirt's default"
            outcomes.carry(("tpm", "model"), model, tpm.part("model") or Part(tpm), reason=reason)
            note = "it starts empty: what libvirt's holds lies in /var/lib/libvirt/swtpm"
            outcomes.note(backend.part("type"), note)
            outcomes.same(backend.part("version"), "see tpm")
            outcomes.same(backend.part("persistent_state"), "its state always outlives the guest")
