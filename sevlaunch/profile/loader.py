"""Profile files -> Profile: extends, overrides, short forms, and every mistake at once.

Layers, lowest first: the model's defaults, the profiles named by ``extends``, the file, ``--set``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from sevlaunch.errors import Problem, ProfileError, UsageError
from sevlaunch.guest_type import GuestType
from sevlaunch.origin import Origin
from sevlaunch.profile import source
from sevlaunch.profile.model import Firmware, Profile
from sevlaunch.profile.positions import KeyPath, Positions
from sevlaunch.profile.rules import check_cautions, check_rules
from sevlaunch.profile.source import Mark, Node
from sevlaunch.profile.validation import Reading, switch

# Each of these keys takes one plain value as the short form of a mapping: the value goes to the key named here.
SHORT_FORMS = {
    "memory": "size",
    "security": "type",
    "video": "type",
    "display": "type",
    "iommu": "type",
    "initdata": "file",
}

# Each of these takes true (all defaults), false (it is left out) or a mapping.
SWITCHES = ("rng", "balloon", "tpm", "watchdog", "first_boot")

# What stands here may be secret: nothing repeats it.
_SECRET = ("first_boot", "credentials")

MAX_EXTENDS = 16
# Signs that YAML takes for line ends, or does not take unescaped: YAML 1.1, 4.1 and 5.1.
_NOT_IN_YAML = "[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]"
MAX_LAYERS = 100


class LoadedProfile(Struct, frozen=True):
    """A profile and where each of its values came from. Programs know it as ``sevlaunch.api.Profile``.

    ``warnings``: what its user should know, and what is not refused. ``layers``: the files that it extends.
    ``identity``: the file's path without links, which tells profiles of one name apart; of text and data, nothing.
    ``origin``: None for text and data.
    """

    profile: Profile
    positions: Positions
    file: str = field(default="")
    warnings: tuple[Problem, ...] = ()
    layers: tuple[str, ...] = ()
    identity: str = ""
    origin: Origin | None = None

    @classmethod
    def load(cls, path: Path | str, *, overrides: Sequence[str] = (), name: str | None = None) -> LoadedProfile:
        """As :func:`load`."""
        return load(Path(path), overrides=overrides, name=name)

    @classmethod
    def loads(
        cls, text: str, *, base: Path | None = None, overrides: Sequence[str] = (), name: str | None = None
    ) -> LoadedProfile:
        """As :func:`loads`."""
        return loads(text, base=base, overrides=overrides, name=name)

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        base: Path | None = None,
        overrides: Sequence[str] = (),
        name: str | None = None,
    ) -> LoadedProfile:
        """The profile in plain data; as :func:`loads`, mistakes are at their line in the data written as JSON."""
        # YAML has JSON in it, but for signs beyond 16 bits, which JSON escapes in halves.
        text = re.sub(
            _NOT_IN_YAML, lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(data, indent=1, ensure_ascii=False)
        )
        return loads(text, file="<dict>", base=base, overrides=overrides, name=name)


def load(
    path: Path, *, overrides: Sequence[str] = (), name: str | None = None, folder: Path | None = None
) -> LoadedProfile:
    """The profile in the file ``path``.

    :param overrides: ``PATH=VALUE`` texts such as ``cpu.count=8``, applied last.
    :param name: a name for the guest instead of the profile's own.
    :param folder: where relative paths in ``overrides`` start; default: the current folder.
    :raise ProfileError: with every mistake, each at its line and column.
    :raise UsageError: when an override is no ``PATH=VALUE``.
    """
    problems: list[Problem] = []
    layers: list[Path] = []
    root = _with_extends(source.read(path, problems, given=True), path, (), layers, problems)
    folder = folder or Path.cwd()
    loaded = _finish(root, str(path), path.stem, overrides, folder, name, problems)
    origin = Origin(str(path.absolute()), tuple(overrides), str(folder))
    return replace(loaded, layers=tuple(map(str, layers)), identity=str(path.resolve()), origin=origin)


def loads(
    text: str,
    *,
    file: str = "<string>",
    base: Path | None = None,
    overrides: Sequence[str] = (),
    name: str | None = None,
) -> LoadedProfile:
    """The profile in ``text``; as :func:`load`, with relative paths starting from ``base`` (the current folder)."""
    folder = base or Path.cwd()
    problems: list[Problem] = []
    node = source.parse(text, file=file, base=folder, problems=problems)
    layers: list[Path] = []
    root = _with_extends(node, folder / file, (), layers, problems)
    loaded = _finish(root, file, "guest", overrides, Path.cwd(), name, problems)
    return replace(loaded, layers=tuple(map(str, layers)))


def shown_override(override: str) -> str:
    """An override for messages, and for what is kept of a plan: without a value that may be secret."""
    path = override.partition("=")[0].strip()
    return f"{path}=..." if path.partition(".")[0] in _SECRET else override


def _finish(
    root: Node,
    file: str,
    stem: str,
    overrides: Sequence[str],
    folder: Path,
    name: str | None,
    problems: list[Problem],
) -> LoadedProfile:
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals:
            raise UsageError(f"wanted --set PATH=VALUE, found {override!r}", hint="for example --set cpu.count=8")
        path = path.strip()
        if path.partition(".")[0] == "extends":
            raise UsageError("--set can't change extends", hint="write a profile that extends the other one")
        # The short form's own key is gone from the profile by now.
        path = "cpu.count" if path == "cpus" else path
        # The option is the place of the value in messages, and in the reasons that a plan is kept with.
        option = f"--set {shown_override(override)}"
        root = source.assign(root, path, text, base=folder, option=option, problems=problems)
        root = _expand_short_forms(root, problems)
    if name is not None:
        root = source.merge(root, Node({"name": Node(name, Mark("--name"))}, root.mark, base=root.base))
    if "name" not in root.value:
        stem_node = Node(stem, Mark(f"{file} (the file's name)"))
        root = source.merge(Node({"name": stem_node}, root.mark, base=root.base), root)
    positions = Positions(root)
    data = root.plain()
    data.pop("extends", None)
    reading = Reading(positions)
    profile = reading.profile(data)
    # What could not be read is reported; what stands in for it is not the user's.
    reported = {problem.location for problem in problems}
    problems += [problem for problem in reading.problems if problem.location not in reported]
    problems += [
        violation.located(positions)
        for violation in check_rules(profile)
        if not any(_concerns(path, reading.wrong) for path in (violation.path, *violation.others))
    ]
    if problems:
        raise ProfileError(f"{file} is refused", problems=_in_order(problems))
    warnings = tuple(caution.located(positions) for caution in check_cautions(profile))
    return LoadedProfile(profile, positions, file, warnings)


def _laid_over(below: Node, above: Node) -> Node:
    """``above`` merged over ``below``; ``security: none`` leaves nothing of a lower layer's encryption."""
    security = above.value.get("security")
    chosen = security.child("type") if security else None
    if chosen is not None and chosen.value == GuestType.NONE:
        below = Node({key: node for key, node in below.value.items() if key != "security"}, below.mark, base=below.base)
    return source.merge(below, above)


def _with_extends(node: Node, path: Path, seen: tuple[Path, ...], layers: list[Path], problems: list[Problem]) -> Node:
    """``node`` laid over the profiles that it extends; ``layers`` are those read so far."""
    node = _expand_short_forms(node, problems)
    extends = node.value.get("extends")
    if extends is None:
        return node
    here = path.resolve()
    bases = extends.value if isinstance(extends.value, list) else [extends]
    if not all(isinstance(base.value, str) and base.value for base in bases):
        raise _refused("wanted the path of a profile, or a list of paths", extends)
    if here in seen:
        raise _refused("the profiles extend each other in a circle", extends)
    if len(seen) >= MAX_EXTENDS:
        raise _refused(f"more than {MAX_EXTENDS} profiles extend one another", extends)
    below: Node | None = None
    for base in bases:
        file = base.base / base.value
        layers.append(file)
        if len(layers) > MAX_LAYERS:
            raise _refused(f"the profile builds on more than {MAX_LAYERS} others", base)
        try:
            layer = source.read(file, problems)
        except ProfileError as error:
            if not isinstance(error.__cause__, (OSError, ValueError)):
                raise
            raise _refused(f"can't read the profile to extend: {error.problems[0].message}", base) from error
        layer = _with_extends(layer, file, (*seen, here), layers, problems)
        # The name belongs to one guest; a profile that builds on another gets its own.
        layer = Node({key: child for key, child in layer.value.items() if key != "name"}, layer.mark, base=layer.base)
        below = layer if below is None else _laid_over(below, layer)
    return node if below is None else _laid_over(below, node)


def _refused(message: str, node: Node) -> ProfileError:
    problem = Problem(message, location=str(node.mark), path="extends")
    return ProfileError(str(problem), problems=[problem])


def _expand_short_forms(root: Node, problems: list[Problem]) -> Node:
    """The long form of each short one, so that layers merge and overrides apply alike."""
    # A key with nothing behind it, its entries commented out say, is as good as none.
    values: dict[str, Node] = {
        key: node for key, node in root.value.items() if node.value is not None or key in SWITCHES
    }
    for key, long_key in SHORT_FORMS.items():
        node = values.get(key)
        if node is not None and not isinstance(node.value, (dict, list)) and node.value is not None:
            values[key] = Node({long_key: node}, node.mark, node.key_mark, node.base)
    for key in SWITCHES:
        node = values.get(key)
        if node is not None and switch(node.value) is not None:
            values[key] = Node({} if switch(node.value) else None, node.mark, node.key_mark, node.base)
    firmware = values.get("firmware")
    if firmware is not None and firmware.value == "auto":
        # Not an empty mapping: that would leave what a lower layer names.
        nothing = dict.fromkeys(Firmware.__struct_fields__, Node(None, firmware.mark, firmware.key_mark, firmware.base))
        values["firmware"] = Node(nothing, firmware.mark, firmware.key_mark, firmware.base)
    cpus = values.pop("cpus", None)
    if cpus is not None:
        cpu = values.get("cpu", Node({}, cpus.mark, cpus.key_mark, cpus.base))
        if isinstance(cpu.value, dict) and "count" in cpu.value:
            message = f"cpus is the short form of cpu.count, which stands at {cpu.value['count'].mark} already"
            problems.append(Problem(message, location=str(cpus.key_mark or cpus.mark), path="cpus"))
        elif isinstance(cpu.value, dict):
            values["cpu"] = Node({**cpu.value, "count": cpus}, cpu.mark, cpu.key_mark, cpu.base)
    return Node(values, root.mark, root.key_mark, root.base)


def _concerns(path: KeyPath, others: set[KeyPath]) -> bool:
    return any(path[:length] in others for length in range(len(path) + 1))


_PLACE = r"(?s)(.*):([0-9]{1,9}):([0-9]{1,9})"


def _in_order(problems: list[Problem]) -> list[Problem]:
    def key(problem: Problem) -> tuple[str, int, int]:
        place = re.fullmatch(_PLACE, problem.location)
        return (place[1], int(place[2]), int(place[3])) if place else (problem.location, 0, 0)

    return sorted(dict.fromkeys(problems), key=key)
