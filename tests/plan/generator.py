"""Valid profiles from the JSON Schema: what a program might write that knows the schema and nothing else of sevlaunch.

A value comes from its place in the schema. What names something of the host, or follows from other values, is in
``_known_values``; what a test can't have on every machine is in ``_LEFT_OUT``. A section, or a member of it, that
breaks a rule beside what is there already is left out.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from sevlaunch.errors import ProfileError
from sevlaunch.host.facts import QemuFacts
from sevlaunch.host.helpers import PLACES
from sevlaunch.profile.loader import LoadedProfile
from sevlaunch.profile.schema import profile_schema
from tests import needs

# Keys of one mapping, and sections of one profile: with more, hardly one breaks no rule.
MOST_KEYS = 3
MOST_SECTIONS = 8
_RAW = [f"raw-{number}.img" for number in range(6)]
_QCOW2 = [f"disk-{number}.qcow2" for number in range(3)]
_LEFT_OUT = {
    # The test says these for all profiles.
    "name",
    "extends",
    "qemu",
    "cpus",
    # They take another user, systemd's journal, a device of the kernel, interfaces of the host, or a port that others
    # may have.
    "run_as",
    "console_journal",
    "vsock",
    "networks.interface",
    "networks.bridge",
    "networks.descriptors",
    "networks.forward",
    # Free huge pages are few, and whoever comes first has them.
    "memory.hugepages",
    # Of what a server gives.
    "disks.sha256",
    "display.address",
    "display.port",
    "firmware.nvram",
    "disks.luks_key",
}
# Of a real secure processor, or bound to another guest's launch.
_LEFT_OUT |= {
    f"{kind}.{key}"
    for kind in ("SevSecurity", "SnpSecurity")
    for key in ("cbitpos", "reduced_phys_bits", "sev_device", "handle", "dh_cert", "session", "id_block", "id_auth")
}
_LEFT_OUT.add("SnpSecurity.author_key_enabled")
# Mappings that have exactly one of some keys, and what goes with it alone, or not with it.
_ONE_OF = {"disks": ("path", "image", "folder"), "first_boot.files": ("content", "source")}
_GO_WITH = {"disks.image": {"overlay", "size"}, "disks.folder": {"label"}}
_GO_NOT_WITH = {"disks.folder": {"format", "read_only", "discard", "detect_zeroes", "serial"}}
_OTHER_NETWORKS = {"TapNetwork", "BridgeNetwork", "MacvtapNetwork"}
# What nearly always breaks a rule in an encrypted guest.
_PLAIN_ALONE = {"accel", "iommu", "iommu_platform", "shares", "smm"}
_SIZES = st.sampled_from(["512", "4096", "1M", "3000", "8M", "64M", 65536])
_MEMORY = st.sampled_from(["64M", "96M", "128M", "130M", "256M"])
_TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), min_size=1, max_size=12)


_NAMES = st.from_regex(r"opt/[!-~]{1,51}", fullmatch=True)
_FW_CFG = st.fixed_dictionaries({"name": _NAMES, "text": _TEXT}) | st.fixed_dictionaries(
    {"name": _NAMES, "file": st.just("file")}
)
# As systemd takes them in the initrd, too.
_CREDENTIALS = st.from_regex(r"[A-Za-z0-9_@-][A-Za-z0-9_.@-]{0,249}", fullmatch=True)
_EPOCH = datetime(1970, 1, 1)


class Generator:
    """Profiles for one QEMU, with files in ``folder``, which is the profiles' own.

    ``encrypted``: whether encrypted guests can be rehearsed. What is not installed, or takes root, is in no profile.
    """

    def __init__(self, qemu: QemuFacts, folder: Path, *, encrypted: bool) -> None:
        self._schema = profile_schema()
        self._qemu = qemu
        self._kinds = ["NoSecurity", "NoSecurity", *(["SevSecurity", "SnpSecurity"] if encrypted else [])]
        virtiofsd = any(Path(program).exists() for program in PLACES["virtiofsd"])
        missing = {"tpm": shutil.which("swtpm") is None, "shares": os.geteuid() != 0 or not virtiofsd}
        self._left_out = _LEFT_OUT | {section for section, is_missing in missing.items() if is_missing}
        self._other_networks = _OTHER_NETWORKS if shutil.which("passt") else _OTHER_NETWORKS | {"PasstNetwork"}
        self._folder = folder
        _make_files(folder)
        self._values = self._known_values()

    def profiles(self) -> st.SearchStrategy[dict[str, Any]]:
        """What may stand in a profile's file: each breaks no rule that needs no host."""
        sections = self._schema["properties"]
        usual = [key for key in sections if key not in self._left_out and key != "security"]
        types = self._schema["$defs"]

        @st.composite
        def drawn(draw: st.DrawFn) -> dict[str, Any]:
            kind = draw(st.sampled_from(self._kinds))
            security = draw(self._mapping(types[kind], kind))
            possible = [key for key in usual if kind == "NoSecurity" or key not in _PLAIN_ALONE]
            keys = draw(st.lists(st.sampled_from(possible), unique=True, min_size=3, max_size=MOST_SECTIONS))
            # What is drawn for it shows something.
            keys += ["video"] if "display" in keys and "video" not in keys else []
            data = {"memory": "128M", "security": security}
            for key in keys:
                data = self._with(data, key, draw(self._value(sections[key], key)))
            return data

        return drawn()

    def _with(self, data: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
        """The profile with one section more, or with those members of it that break no rule beside what is there."""
        if self._loads({**data, key: value}):
            return {**data, key: value}
        kept: list[Any] = []
        for member in value if isinstance(value, list) else []:
            if self._loads({**data, key: [*kept, member]}):
                kept.append(member)
        return {**data, key: kept} if kept else data

    def _loads(self, data: dict[str, Any]) -> bool:
        try:
            LoadedProfile.from_dict({"name": "g", **data}, base=self._folder)
        except ProfileError:
            return False
        return True

    def _value(self, schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
        if path in self._values:
            return self._values[path]
        if "$ref" in schema:
            return self._mapping(self._schema["$defs"][schema["$ref"].rpartition("/")[2]], path)
        if "anyOf" in schema:
            return st.one_of([self._value(one, path) for one in schema["anyOf"] if not self._is_left_out(one)])
        if "enum" in schema or "const" in schema:
            return st.sampled_from(schema.get("enum") or [schema["const"]])
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return st.one_of([self._plain(kind, schema, path) for kind in kinds])

    def _plain(self, kind: str, schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
        if kind == "null":
            return st.none()
        if kind == "boolean":
            return st.booleans()
        if kind == "integer":
            low = schema.get("minimum", 0)
            high = schema.get(
                "maximum", schema.get("exclusiveMaximum", low + 65) - 1 if "exclusiveMaximum" in schema else low + 64
            )
            return st.integers(low, min(high, low + 8)) | st.integers(low, high)
        if kind == "array":
            return st.lists(self._value(schema["items"], path), max_size=MOST_KEYS)
        if "pattern" in schema:
            return st.from_regex(schema["pattern"], alphabet=st.characters(min_codepoint=32, max_codepoint=382))
        return _TEXT

    def _mapping(self, schema: dict[str, Any], path: str) -> st.SearchStrategy[dict[str, Any]]:
        if path in _ONE_OF:
            return st.one_of([self._mapping_with(schema, path, key) for key in _ONE_OF[path]])
        return self._mapping_with(schema, path)

    def _mapping_with(self, schema: dict[str, Any], path: str, one: str = "") -> st.SearchStrategy[dict[str, Any]]:
        """A mapping that has the key ``one`` among those of which there is one."""
        fitting = {key for other, keys in _GO_WITH.items() if other != f"{path}.{one}" for key in keys}
        others = {*_ONE_OF.get(path, ()), *fitting, *_GO_NOT_WITH.get(f"{path}.{one}", ())} - {one} if one else set()
        wanted = {"type", one, *schema.get("required", [])}
        required = [key for key in schema["properties"] if key in wanted]
        left_out = {key for key in schema["properties"] if f"{path}.{key}" in self._left_out} | others
        optional = [key for key in schema["properties"] if key not in (*required, *left_out)]

        def chosen(keys: list[str]) -> st.SearchStrategy[dict[str, Any]]:
            wanted = (*required, *keys)
            return st.fixed_dictionaries(
                {key: self._value(schema["properties"][key], f"{path}.{key}") for key in wanted}
            )

        if not optional:
            return chosen([])
        return st.lists(st.sampled_from(optional), unique=True, max_size=MOST_KEYS).flatmap(chosen)

    def _is_left_out(self, schema: dict[str, Any]) -> bool:
        """Whether it is a kind of network that takes something of the host."""
        return schema.get("$ref", "").rpartition("/")[2] in self._other_networks

    def _known_values(self) -> dict[str, st.SearchStrategy[Any]]:
        features = [
            "svm=off",
            "x2apic=on",
            "phys-bits=42",
            "host-phys-bits=on",
            "pmu=off",
            "lahf_lm=on",
            "hv-relaxed=on",
        ]
        names = ("image", "code", "vars")
        image, code, variables = str(needs.amdsev_image()), *map(str, needs.ovmf())
        return {
            "machine": st.sampled_from([*self._qemu.machines, "pc-q35-rhel9.4.0"]) | st.just("q35"),
            "cpu.count": st.integers(1, 12) | st.just(256),
            "cpu.maxcpus": st.integers(1, 16) | st.just(300),
            "cpu.model": st.sampled_from([*self._qemu.cpu_models, "auto", "EPYC"]),
            "cpu.features": st.lists(st.sampled_from(features), unique=True, max_size=MOST_KEYS),
            "cpu.pin": st.lists(st.just(0), min_size=1, max_size=4),
            "memory": _MEMORY | self._mapping(self._schema["$defs"]["Memory"], "memory"),
            "memory.size": _MEMORY,
            "memory.hard_limit": st.none(),
            "memory.nodes": st.just([0]),
            "numa": numa(),
            "firmware": st.sampled_from(["auto", dict(zip(names, (image, None, None), strict=True))])
            | st.just(dict(zip(names, (None, code, variables), strict=True))),
            "SnpSecurity.host_data": st.just(bytes(32).hex()),
            "SnpSecurity.guest_visible_workarounds": st.just(bytes(16).hex()),
            # The upper half is the least version of the secure processor's API, which an emulated one has, too.
            "SevSecurity.policy": st.sampled_from([0x1, 0x3, 0x5, 0x7, 0x33, 0x37, 0x10033]),
            "SnpSecurity.policy": st.sampled_from([0x30000, 0xB0000, 0x30133, ["smt"]]),
            "rng.source": st.just("/dev/urandom"),
            "boot.kernel": st.just("vmlinuz"),
            "boot.initrd": st.just("file"),
            "boot.cmdline": _TEXT,
            **{f"cpu.{level}": st.integers(1, 3) for level in ("sockets", "dies", "modules", "cores", "threads")},
            "disks.slot": st.integers(0, 12),
            "networks.slot": st.integers(0, 12),
            "boot.credentials": st.dictionaries(
                _CREDENTIALS, st.fixed_dictionaries({"text": _TEXT}) | st.just("file"), max_size=MOST_KEYS
            ),
            "disks.path": st.sampled_from([*_RAW, *_QCOW2]),
            "disks.image": st.sampled_from([*_RAW, *_QCOW2]),
            "disks.folder": st.just("folder"),
            "disks.serial": _TEXT,
            "disks.logical_block_size": st.sampled_from([512, 4096, "64K"]),
            "fw_cfg": st.lists(_FW_CFG, unique_by=lambda one: one["name"], max_size=MOST_KEYS),
            "first_boot.hostname": st.sampled_from(["web", "web.example.org"]),
            "first_boot.ssh_keys": st.sampled_from(["auto", "own", []]),
            "first_boot.password_hash": st.just("$6$salt$no-password-at-all"),
            "first_boot.user_data": st.sampled_from([{"timezone": "UTC"}, "script", "file"]),
            "first_boot.meta_data": st.fixed_dictionaries({"role": _TEXT}),
            "first_boot.network_config": st.just({"version": 2}),
            "first_boot.files.source": st.just("file"),
            "credentials": st.dictionaries(_CREDENTIALS, st.fixed_dictionaries({"text": _TEXT}) | st.just("file")),
            "ignition": st.just("config.ign"),
            "clock.base": st.sampled_from(["utc", "localtime"]) | st.datetimes(_EPOCH).map(_clock),
            "networks.mac": st.integers(0, 255).map(lambda last: f"52:54:00:12:34:{last:02x}"),
            "shares.path": st.just("."),
            **dict.fromkeys(
                ("disks.throttle.bytes", "disks.throttle.bytes_read", "disks.throttle.bytes_write"), _SIZES
            ),
            **{
                f"video.{key}": st.sampled_from(["1M", "8M", "64M", "3M", "1500K"]) for key in ("ram", "vram", "vgamem")
            },
        }


@st.composite
def numa(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Nodes of one vCPU each, or of memory alone, that make 128M together."""
    count = draw(st.sampled_from([1, 2, 4]))
    nodes: list[dict[str, Any]] = [{"memory": f"{128 // count}M"} for _ in range(count)]
    for number in range(draw(st.integers(1, count))):
        nodes[number]["cpus"] = number
    if draw(st.booleans()):
        for number, node in enumerate(nodes):
            node["distances"] = [10 if other == number else 21 for other in range(count)]
    if draw(st.booleans()):
        nodes[0]["host_node"] = 0
    return nodes


def _clock(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def _make_files(folder: Path) -> None:
    """Images, a file, and what QEMU takes for a kernel: Linux' Documentation/arch/x86/boot.rst."""
    for name in _RAW:
        (folder / name).write_bytes(bytes(1 << 20))
    qemu_img = needs.program("qemu-img", "qemu-utils")
    for name in _QCOW2:
        subprocess.run([qemu_img, "create", "-q", "-f", "qcow2", folder / name, "1M"], check=True)
    (folder / "file").write_text("content\n")
    (folder / "folder").mkdir()
    (folder / "folder/file").write_text("content\n")
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "config.ign").write_text('{"ignition": {"version": "3.4.0"}}')
    kernel = bytearray(1 << 16)
    struct.pack_into("<B", kernel, 0x1F1, 4)
    struct.pack_into("<4sH", kernel, 0x202, b"HdrS", 0x20C)
    struct.pack_into("<B", kernel, 0x211, 1)
    struct.pack_into("<I", kernel, 0x22C, 0x7FFFFFFF)
    (folder / "vmlinuz").write_bytes(kernel)
