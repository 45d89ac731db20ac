"""What a profile makes sevlaunch and QEMU do outside the guest's own folder, for who did not write it.

Only what the profile says counts: not what every guest gets, nor what the defaults name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from sevlaunch.image_reference import is_url
from sevlaunch.profile.fields import BLOB_BYTES, inline_blob, split_forward
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.profile.model import (
    FIRST_PORT,
    BridgeNetwork,
    Disk,
    MacvtapNetwork,
    Model,
    Network,
    NoDisplay,
    PasstNetwork,
    Profile,
    TapNetwork,
    UserNetwork,
)
from sevlaunch.profile.model.base import attribute_of
from sevlaunch.profile.network_rules import LOOPBACK
from sevlaunch.profile.option_reach import CONNECTS, LISTENS, OPENS, READS, RUNS, WRITES, reach_of_options
from sevlaunch.profile.positions import KeyPath
from sevlaunch.profile.seed_values import public_key_in
from sevlaunch.profile.validation import field_types

BECOMES = "becomes"

# What is done with each path that a profile can name; the numbers of lists are left out. Of a disk its own keys tell.
PATHS = {
    "boot.initrd": READS,
    "boot.kernel": READS,
    "disks.folder": READS,
    "disks.image": READS,
    "disks.luks_key": READS,
    "disks.path": WRITES,
    "firmware.code": READS,
    "firmware.image": READS,
    "firmware.nvram": WRITES,
    "firmware.vars": READS,
    "first_boot.files.source": READS,
    "ignition": READS,
    "qemu.binary": RUNS,
    "fw_cfg.file": READS,
    "rng.source": READS,
    "security.id_block.author": READS,
    "security.id_block.key": READS,
    "security.sev_device": OPENS,
    "shares.path": WRITES,
}


class Reach(NamedTuple):
    """One thing outside the guest's folder.

    ``does``: runs, reads, writes, opens (a device), listens, connects or becomes (a user); ``what``: the file, program,
    address or user; ``location`` and ``path`` as those of a problem.
    """

    does: str
    what: str
    location: str
    path: str

    def __str__(self) -> str:
        return f"{self.location}: {self.path}: {self.does} {self.what}"


def reach(loaded: LoadedProfile) -> list[Reach]:
    """All of it, in the order of the profile's keys."""
    found = [*_layers(loaded), *_paths(loaded), *_blobs(loaded), *_seed(loaded), *_credentials(loaded)]
    found += _initdata(loaded)
    found += [*_networks(loaded), *_rest(loaded)]
    return list(dict.fromkeys(found))


def _at(loaded: LoadedProfile, does: str, what: str, *path: str | int) -> Reach:
    return Reach(does, what, str(loaded.positions.nearest(path)), ".".join(map(str, path)))


def _layers(loaded: LoadedProfile) -> Iterator[Reach]:
    for layer in loaded.layers:
        yield _at(loaded, READS, layer, "extends")


def _paths(loaded: LoadedProfile) -> Iterator[Reach]:
    for path, value, owner in _said_paths(loaded.profile, ()):
        if loaded.positions.mark(path) is None:
            continue
        does = PATHS[".".join(part for part in path if isinstance(part, str))]
        if isinstance(owner, Disk) and owner.is_fetched:
            yield _at(loaded, CONNECTS, value if is_url(value) else f"where the catalogue has {value}", *path)
            continue
        if isinstance(owner, Disk) and (owner.read_only or owner.cdrom):
            does = READS
        yield _at(loaded, does, value, *path)


def _said_paths(model: Model, path: KeyPath) -> Iterator[tuple[KeyPath, str, Model]]:
    """Where each path of a file stands, the path, and the mapping that it is in."""
    for key, field in field_types(type(model)).items():
        value = getattr(model, attribute_of(key))
        if field.parser and field.parser.names_file and isinstance(value, str) and value not in field.words:
            yield (*path, key), value, model
        for index, element in enumerate(value) if isinstance(value, list) else ():
            if isinstance(element, Model):
                yield from _said_paths(element, (*path, key, index))
        if isinstance(value, Model):
            yield from _said_paths(value, (*path, key))


def _blobs(loaded: LoadedProfile) -> Iterator[Reach]:
    security = loaded.positions.root.child("security")
    for key, size in BLOB_BYTES.items():
        node = security.child(key) if security else None
        text: Any = node.value if node else None
        named = isinstance(getattr(loaded.profile.security, key, None), bytes)
        if named and isinstance(text, str) and inline_blob(text, size) is None:
            yield _at(loaded, READS, text, "security", key)


def _seed(loaded: LoadedProfile) -> Iterator[Reach]:
    first_boot = loaded.profile.first_boot
    if first_boot is None:
        return
    node = loaded.positions.root.child("first_boot")
    keys = node.child("ssh_keys") if node else None
    places: list[KeyPath] = [(key,) for key in ("user_data", "meta_data", "network_config")]
    places += [("ssh_keys", index) for index in range(len(keys.value) if keys and isinstance(keys.value, list) else 0)]
    for place in places:
        text: Any = node
        for part in place:
            text = text and text.child(part)
        # A mapping is the document itself.
        if text and isinstance(text.value, str) and public_key_in(text.value) is None:
            yield _at(loaded, READS, text.value, "first_boot", *place)
    if first_boot.ssh_keys == "auto":
        yield _at(loaded, CONNECTS, "this user's SSH agent, for its public keys", "first_boot", "ssh_keys")
        yield _at(loaded, READS, "~/.ssh/*.pub", "first_boot", "ssh_keys")


def _initdata(loaded: LoadedProfile) -> Iterator[Reach]:
    said, node = loaded.profile.initdata, loaded.positions.root.child("initdata")
    file = node.child("file") if node else None
    if file and isinstance(file.value, str):
        yield _at(loaded, READS, file.value, "initdata", "file")
    for name, path in said.files.items() if said else ():
        yield _at(loaded, READS, path, "initdata", "files", name)


def _credentials(loaded: LoadedProfile) -> Iterator[Reach]:
    for path, credentials in (
        (("credentials",), loaded.profile.credentials),
        (("boot", "credentials"), loaded.profile.boot.credentials),
    ):
        for name in credentials:
            node: Any = loaded.positions.root
            for part in (*path, name):
                node = node and node.child(part)
            if node and isinstance(node.value, str):
                yield _at(loaded, READS, node.value, *path, name)


def _networks(loaded: LoadedProfile) -> Iterator[Reach]:
    for index, network in enumerate(loaded.profile.networks):
        for does, what in _network(network):
            yield _at(loaded, does, what, "networks", index)
        if not isinstance(network, (UserNetwork, PasstNetwork)):
            continue
        if network.ssh is not None:
            yield _at(loaded, LISTENS, _port("tcp", LOOPBACK, network.ssh), "networks", index, "ssh")
        for number, forward in enumerate(network.forward):
            protocol, address, port, _ = split_forward(forward)
            what = _port(protocol, address or LOOPBACK, port or "auto")
            yield _at(loaded, LISTENS, what, "networks", index, "forward", number)


def _port(protocol: str, address: str, port: int | Literal["auto"]) -> str:
    return f"a free {protocol} port of {address}" if port == "auto" else f"{protocol} port {port} of {address}"


def _network(network: Network) -> Iterator[tuple[str, str]]:
    if isinstance(network, UserNetwork):
        if not network.restrict:
            yield CONNECTS, "wherever the guest wants to, as this user"
    elif isinstance(network, PasstNetwork):
        yield RUNS, "passt"
        yield CONNECTS, "wherever the guest wants to, as this user"
    elif isinstance(network, TapNetwork) and network.descriptors:
        yield OPENS, f"the network behind the descriptors {', '.join(map(str, network.descriptors))}"
    elif isinstance(network, (TapNetwork, MacvtapNetwork)):
        yield OPENS, f"the network interface {network.interface}"
    elif isinstance(network, BridgeNetwork):
        yield RUNS, "qemu-bridge-helper"
        yield OPENS, f"the network bridge {network.bridge}"


def _rest(loaded: LoadedProfile) -> Iterator[Reach]:
    profile: Profile = loaded.profile
    for index, _ in enumerate(profile.shares):
        yield _at(loaded, RUNS, "virtiofsd", "shares", index)
    if profile.tpm is not None:
        yield _at(loaded, RUNS, "swtpm", "tpm")
    display = profile.display
    if not isinstance(display, NoDisplay) and display.address is not None:
        yield _at(loaded, LISTENS, f"tcp port {display.port or FIRST_PORT} of {display.address}", "display", "address")
    if profile.vsock is not None:
        yield _at(loaded, CONNECTS, "this host, through vsock", "vsock")
    if profile.console_journal:
        yield _at(loaded, CONNECTS, "systemd's journal", "console_journal")
    if profile.run_as is not None:
        yield _at(loaded, BECOMES, f"the user {profile.run_as}", "run_as")
    for option in reach_of_options(profile.qemu.extra_args):
        yield _at(loaded, option.does, option.what, "qemu", "extra_args", option.position)
