"""What a guest needs of the host's file system: devices and files, as the plan names them."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from sevlaunch.plan.plan import Plan


class NeededDevice(Struct, frozen=True):
    """A device file, and how to get it."""

    path: str
    remedy: str


class NeededImage(Struct, frozen=True):
    """A disk's image, or a block device."""

    path: str
    write: bool


def peripheral_devices(plan: Plan) -> Iterator[NeededDevice]:
    """The devices of the host that the guest's networks and peripherals need."""
    kinds = {option.parameters[0].value for option in (*plan.network.options, *plan.peripherals.options)}
    if "vhost-vsock-pci" in kinds:
        yield NeededDevice("/dev/vhost-vsock", "modprobe vhost_vsock, or leave vsock out")
    if kinds & {"tap", "bridge"}:
        yield NeededDevice("/dev/net/tun", "modprobe tun, or use a network of type user")


def images(plan: Plan) -> Iterator[NeededImage]:
    """The images of the guest's disks."""
    for option in plan.storage.options:
        values = {parameter.key: parameter.value for parameter in option.parameters}
        if option.name == "-blockdev":
            yield NeededImage(values["file.filename"], values["read-only"] == "off")


def device_paths(plan: Plan) -> list[str]:
    """Every device file that QEMU opens, block devices of disks included."""
    found = ["/dev/kvm"] if plan.machine.accel.value == "kvm" else []
    if plan.security and not plan.rehearsal:
        found.append(plan.security.sev_device)
    found += [device.path for device in peripheral_devices(plan)]
    return [*found, *(image.path for image in images(plan) if image.path.startswith("/dev/"))]


def written_paths(plan: Plan) -> list[str]:
    """Every file that QEMU writes to, apart from sevlaunch's own folders."""
    found = [image.path for image in images(plan) if image.write and not image.path.startswith("/dev/")]
    if plan.firmware.vars and not plan.firmware.vars.value.startswith(str(plan.state_folder)):
        found.append(plan.firmware.vars.value)
    return found
