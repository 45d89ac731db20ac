"""The host that a profile is planned for: this machine, or one whose facts were saved."""

from __future__ import annotations

from pathlib import Path

from sevlaunch.host.model import Host
from sevlaunch.profile.model import Profile


def host_for(
    profile: Profile, saved: Path | None = None, *, runtime: Path | None = None, thorough: bool = False
) -> Host:
    """A host, as far as the plan of ``profile`` depends on it.

    :param saved: the file with the facts of another one; default: this machine.
    :param runtime: the folder of running guests instead of the user's own.
    :param thorough: with what only the doctor wants to know.
    :raise HostError: when the file can't be read.
    """
    if saved:
        return Host.load(saved).with_boot(profile.boot.kernel, profile.boot_image).with_verity(profile.verity)
    return Host.probe(
        profile.qemu.binary,
        runtime=runtime,
        thorough=thorough,
        ordinary=not (thorough or profile.security.encrypted or profile.accel == "kvm"),
        images=profile.images,
        verity=profile.verity,
        helpers=profile.helpers,
        firmware=profile.firmware.files,
        kernel=profile.boot.kernel,
        boot_image=profile.boot_image,
        io_uring=profile.uses_io_uring,
    )
