"""The profile as plain data: one module for each part of it. Those of first_boot and initdata are for few profiles."""

from sevlaunch.profile.model.base import Auto, Model
from sevlaunch.profile.model.board import Clock, FwCfgFile, Smbios, Watchdog
from sevlaunch.profile.model.boot import Boot
from sevlaunch.profile.model.devices import Balloon, Channel, Rng, Share, Tpm, Video
from sevlaunch.profile.model.disks import BASE_FORMATS, OWN_THREAD, Bus, Cache, Disk, ImageFormat, Overlay, Throttle
from sevlaunch.profile.model.display import FIRST_PORT, Display, NoDisplay, SpiceDisplay, VncDisplay
from sevlaunch.profile.model.machine import Cpu, Firmware, Iommu, Memory, NumaNode
from sevlaunch.profile.model.networks import (
    BridgeNetwork,
    MacvtapNetwork,
    Network,
    PasstNetwork,
    TapNetwork,
    UserNetwork,
)
from sevlaunch.profile.model.profile import Profile, Qemu
from sevlaunch.profile.model.security import (
    Cbitpos,
    IdKeys,
    NoSecurity,
    ReducedPhysBits,
    Security,
    SevSecurity,
    SnpSecurity,
)

__all__ = [
    "Watchdog",
    "Smbios",
    "FwCfgFile",
    "Clock",
    "OWN_THREAD",
    "Auto",
    "BASE_FORMATS",
    "Balloon",
    "Boot",
    "BridgeNetwork",
    "Bus",
    "Cache",
    "Cbitpos",
    "Channel",
    "Cpu",
    "Disk",
    "Display",
    "FIRST_PORT",
    "Firmware",
    "IdKeys",
    "ImageFormat",
    "Iommu",
    "MacvtapNetwork",
    "Memory",
    "Model",
    "Network",
    "Overlay",
    "NoDisplay",
    "NoSecurity",
    "NumaNode",
    "PasstNetwork",
    "Profile",
    "Qemu",
    "ReducedPhysBits",
    "Rng",
    "Security",
    "SevSecurity",
    "Share",
    "SnpSecurity",
    "SpiceDisplay",
    "TapNetwork",
    "Throttle",
    "Tpm",
    "UserNetwork",
    "Video",
    "VncDisplay",
]
