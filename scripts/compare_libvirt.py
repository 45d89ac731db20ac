"""libvirt's command line for a domain beside sevlaunch's; see scripts/compare-libvirt."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from command_line import Properties, items, read_arguments

from sevlaunch.errors import SevlaunchError
from sevlaunch.host.model import Host
from sevlaunch.libvirt.document import read_domain
from sevlaunch.libvirt.domain import import_domain
from sevlaunch.plan.command_line import argv
from sevlaunch.plan.resolve import resolve
from sevlaunch.profile.loader import loads

NO_LIBVIRT = 3

# Why the two differ, by device or property.
REASONS = {
    "pcie-root-port": "libvirt puts each device behind a port, sevlaunch on the root bus",
    "pcie-pci-bridge": "libvirt puts each device behind a port, sevlaunch on the root bus",
    "qemu-xhci": "libvirt gives every domain a USB controller",
    "piix3-usb-uhci": "libvirt gives every domain a USB controller",
    "virtio-serial-pci": "for channels, which sevlaunch has none of",
    "isa-serial": "sevlaunch has the same port through -serial",
    "vram64_size_mb": "QEMU's default",
    "smm": "the registers of an SEV-ES guest can't be saved for SMM",
    "kernel-irqchip": "SNP needs the interrupt controllers outside the kernel",
    "network": "see what `sevlaunch import` says of it; libvirt prints tap for what it would set up itself",
    "disable-legacy": "iommu_platform needs a modern device",
    "romfile": "an option ROM breaks under SEV",
    "usb": "q35 has no USB controller of its own",
    "dump-guest-core": "sevlaunch dumps no guests",
    "vmport": "it reads registers that SEV-ES encrypts",
    "acpi": "UEFI needs ACPI",
    "discard": "sevlaunch passes discards on unless told otherwise",
    "mac": "derived from the guest's name unless the domain has one",
    "through": "SEV-ES and SNP can't have firmware on pflash",
    "sockets": "QEMU counts them from the vCPUs",
    "cores": "QEMU counts them from the vCPUs",
    "threads": "QEMU counts them from the vCPUs",
    "type": "see what `sevlaunch import` says of it",
    "mem-lock": "memory of a SEV guest must not be swapped",
}


@dataclass(frozen=True)
class Compared:
    """An item in both command lines; ``differences`` are (libvirt's, sevlaunch's) by property, None where it is not."""

    item: str
    libvirt: Properties | None
    sevlaunch: Properties | None
    differences: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)


def compare(theirs: dict[str, Properties], ours: dict[str, Properties]) -> Iterator[Compared]:
    """Both command lines, item by item."""
    for item in dict.fromkeys((*theirs, *ours)):
        their, our = theirs.get(item), ours.get(item)
        differences: dict[str, tuple[str | None, str | None]] = {}
        if their is not None and our is not None:
            for key in dict.fromkeys((*their, *our)):
                if their.get(key, _default(key)) != our.get(key, _default(key)):
                    differences[key] = (their.get(key), our.get(key))
        yield Compared(item, their, our, differences)


def _default(key: str) -> str | None:
    return {"iommu_platform": "off", "kernel-hashes": "off", "write-cache": "on"}.get(key)


def arguments_of_sevlaunch(domain: Path, host: Host) -> list[str]:
    """The arguments for the imported domain."""
    machines = host.qemu.machines if host.qemu else None
    imported = import_domain(read_domain(domain.read_bytes(), file=str(domain)), file=str(domain), machines=machines)
    return argv(resolve(loads(imported.text, file="imported profile", name=imported.name), host))[1:]


def arguments_of_libvirt(domain: Path) -> list[str]:
    """The arguments that the libvirt of this machine gives; what it can't do here is taken out of the domain."""
    if shutil.which("virsh") is None:
        print("compare-libvirt: wanted virsh (Debian: libvirt-clients and libvirt-daemon-driver-qemu)", file=sys.stderr)
        sys.exit(NO_LIBVIRT)
    tree = ElementTree.fromstring(domain.read_bytes())
    if tree.find("name") is None:
        ElementTree.SubElement(tree, "name").text = domain.stem
    if tree.find("features/acpi") is None:
        print("compare-libvirt: with <acpi/>, which libvirt wants for UEFI", file=sys.stderr)
        features = tree.find("features")
        ElementTree.SubElement(ElementTree.SubElement(tree, "features") if features is None else features, "acpi")
    found = _native(tree)
    security = tree.find("launchSecurity")
    if found.returncode and security is not None:
        print(f"compare-libvirt: without launchSecurity: {_complaint(found)}", file=sys.stderr)
        tree.remove(security)
        found = _native(tree)
    if found.returncode:
        print(f"compare-libvirt: libvirt refuses the domain: {_complaint(found)}", file=sys.stderr)
        sys.exit(1)
    return read_arguments(found.stdout)


def _native(tree: ElementTree.Element) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(prefix="compare-libvirt-") as folder:
        file = Path(folder) / "domain.xml"
        file.write_bytes(ElementTree.tostring(tree))
        # The driver runs inside virsh, with a root folder of its own. It makes tap interfaces even to print a command
        # line: in a network of its own. For root it would need libvirt's own user.
        user = ["--map-user=1000", "--map-group=1000"] if os.geteuid() == 0 else ["--map-current-user"]
        apart = ["unshare", "--user", *user, "--keep-caps", "--net"]
        uri = f"qemu:///embed?root={folder}"
        command = [*apart, "virsh", "--quiet", "-c", uri, "domxml-to-native", "qemu-argv", str(file)]
        environment = {**os.environ, "HOME": folder, "XDG_RUNTIME_DIR": folder, "XDG_CACHE_HOME": folder}
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def _complaint(found: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    return lines[-1].removeprefix("error: ") if lines else found.stderr.strip() or f"exit code {found.returncode}"


def show(compared: Compared) -> Iterator[str]:
    """Lines for people."""
    if compared.libvirt is None or compared.sevlaunch is None:
        who = "sevlaunch" if compared.libvirt is None else "libvirt"
        properties = compared.sevlaunch if compared.libvirt is None else compared.libvirt
        reason = REASONS.get(compared.item.rpartition(" ")[0] or compared.item, "")
        yield f"{'only ' + who:<16}{compared.item:<22}{_short(properties or {})}" + (f"  ({reason})" if reason else "")
        return
    yield f"{'differs' if compared.differences else 'same':<16}{compared.item:<22}{_short(compared.sevlaunch)}"
    for key, (their, our) in compared.differences.items():
        reason = f"  ({REASONS[key]})" if key in REASONS else ""
        yield f"{'':<16}{'':<22}{key}: libvirt {_said(their)}, sevlaunch {_said(our)}{reason}"


def _short(properties: Properties) -> str:
    return " ".join(f"{key}={value if len(value) <= 60 else value[:57] + '...'}" for key, value in properties.items())


def _said(value: str | None) -> str:
    if value is None:
        return "says nothing"
    return repr(value if len(value) <= 60 else value[:57] + "...")


def main() -> None:
    parser = argparse.ArgumentParser(prog="compare-libvirt", description=__doc__)
    parser.add_argument("domain", type=Path, help="domain XML")
    parser.add_argument("--args", type=Path, help="libvirt's command line, instead of asking libvirt")
    parser.add_argument("--host", type=Path, help="for the host saved in this file")
    parser.add_argument("--format", choices=("text", "json"), default="text")
    options = parser.parse_args()
    try:
        host = Host.load(options.host) if options.host else Host.probe()
        ours = items(arguments_of_sevlaunch(options.domain, host))
    except (SevlaunchError, OSError) as error:
        print(f"compare-libvirt: sevlaunch: {error}", file=sys.stderr)
        sys.exit(1)
    theirs = items(read_arguments(options.args.read_text()) if options.args else arguments_of_libvirt(options.domain))
    result = list(compare(theirs, ours))
    if options.format == "json":
        print(json.dumps([asdict(one) for one in result], indent=2))
    else:
        print("\n".join(line for one in result for line in show(one)))


if __name__ == "__main__":
    main()
