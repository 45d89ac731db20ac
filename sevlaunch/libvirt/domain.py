"""Domain XML of libvirt -> a profile, and what did not come along.

A domain is read into elements (document), which the modules of this folder turn into values of a profile; each part of
the XML gets an outcome (outcomes), and what no module reads is reported by its name (reasons). The profile is written
as YAML (yaml_writer) and read back by sevlaunch's own loader.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from sevlaunch.errors import Problem, ProfileError
from sevlaunch.libvirt.arguments import import_arguments
from sevlaunch.libvirt.board import import_board
from sevlaunch.libvirt.boot_order import import_boot_order
from sevlaunch.libvirt.channels import import_channels, import_tpm
from sevlaunch.libvirt.clock import import_clock
from sevlaunch.libvirt.conversion import ENCRYPTED, Conversion
from sevlaunch.libvirt.cpu import import_cpu
from sevlaunch.libvirt.devices import import_devices
from sevlaunch.libvirt.disks import import_disks
from sevlaunch.libvirt.document import Element
from sevlaunch.libvirt.firmware import import_boot
from sevlaunch.libvirt.general import import_general
from sevlaunch.libvirt.interfaces import import_interfaces
from sevlaunch.libvirt.machine import import_machine
from sevlaunch.libvirt.memory import import_memory
from sevlaunch.libvirt.numa import import_numa
from sevlaunch.libvirt.outcomes import Outcome, Outcomes
from sevlaunch.libvirt.reasons import LOST, Kind
from sevlaunch.libvirt.screen import import_screen
from sevlaunch.libvirt.security import import_security
from sevlaunch.libvirt.yaml_writer import write_profile
from sevlaunch.profile.loader import loads

_STEPS = (
    import_general,
    import_machine,
    import_clock,
    import_security,
    import_boot,
    import_memory,
    import_numa,
    import_board,
    import_cpu,
    import_disks,
    import_interfaces,
    import_devices,
    import_screen,
    import_channels,
    import_tpm,
    import_boot_order,
    import_arguments,
)


class Imported(Struct, frozen=True):
    """A domain as a profile.

    ``text`` is the profile's YAML, ``outcomes`` what became of each part of the XML, in its order; ``problems`` is why
    sevlaunch's own loader refuses the profile, empty where it does not.
    """

    name: str
    text: str
    outcomes: tuple[Outcome, ...]
    problems: tuple[Problem, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many parts of the XML have each kind of outcome."""
        found = Counter(outcome.kind for outcome in self.outcomes)
        return {kind.value: found[kind] for kind in Kind}

    @property
    def lost(self) -> tuple[Outcome, ...]:
        """What the domain has and the profile has not."""
        return tuple(outcome for outcome in self.outcomes if outcome.kind in LOST)

    @property
    def works(self) -> bool:
        """Whether the profile can be started as it is: it loads, and nothing in it had to be refused."""
        return not self.problems and not any(outcome.kind is Kind.REFUSED for outcome in self.outcomes)


def import_domain(
    domain: Element,
    *,
    file: str,
    profile: str = "profile.yaml",
    base: Path | None = None,
    machines: Collection[str] | None = None,
) -> Imported:
    """``domain`` (of :func:`~sevlaunch.libvirt.document.read_domain`) as a profile.

    :param file: the name of the XML, for messages and the profile's comments.
    :param profile: the name of the profile, for messages; its stem is the guest's name where the domain has none.
    :param base: the folder that relative paths in the profile start from.
    :param machines: the machine types of the QEMU that is to run the guest; None: all are taken as they are.
    :raise ProfileError: when the domain is none that sevlaunch could run at all.
    """
    reasons = list(_foreign(domain, file))
    if reasons:
        raise ProfileError(f"{file} is refused", problems=reasons)
    conversion = Conversion(domain, machines)
    for step in _STEPS:
        step(conversion)
    outcomes = conversion.outcomes
    outcomes.close(domain)
    name = outcomes.values[("name",)].value if ("name",) in outcomes.values else Path(profile).stem
    text = write_profile(outcomes.values, outcomes.found, list(_head(domain, file)))
    problems: tuple[Problem, ...] = ()
    try:
        loads(text, file=profile, base=base, name=None if ("name",) in outcomes.values else str(name))
    except ProfileError as error:
        problems = tuple(_with_lines(error.problems, outcomes, file))
    return Imported(str(name), text, tuple(outcomes.found), problems)


def _foreign(domain: Element, file: str) -> Iterator[Problem]:
    """Why sevlaunch could not run the domain at all."""
    os_type = domain.child("os").child("type")
    architecture = os_type.get("arch") or "x86_64"
    security = domain.child("launchSecurity")
    for element, found, known, what in (
        (domain, domain.get("type"), ("kvm", "qemu"), "a QEMU domain (type kvm or qemu)"),
        (os_type, os_type.text, ("hvm",), "a fully virtualised guest (os type hvm)"),
        (os_type, architecture, ("x86_64",), "a guest for x86_64"),
        (security, security.get("type"), (*ENCRYPTED, None), "launchSecurity of type sev or sev-snp"),
    ):
        if found not in known or (element is security and security and found is None):
            line = element.line or domain.line
            yield Problem(f"wanted {what}, found {found or 'nothing'!r}", location=f"{file}:{line}")


def _with_lines(problems: Iterable[Problem], outcomes: Outcomes, file: str) -> Iterator[Problem]:
    """Problems of the profile, with the line of the domain that each value came from."""
    lines: dict[str, int] = {}
    for key, origin in outcomes.values.items():
        for length in range(len(key), 0, -1):
            lines.setdefault(".".join(map(str, key[:length])), origin.outcome.line)
    for problem in problems:
        path = problem.path
        while path not in lines and "." in path:
            path = path.rpartition(".")[0]
        hints = [problem.hint, f"it is line {lines[path]} of {file}" if path in lines else ""]
        yield problem._replace(hint="; ".join(filter(None, hints)))


def _head(domain: Element, file: str) -> Iterator[str]:
    yield f"Imported by sevlaunch from the libvirt domain in {file}; the lines are those of the XML."
    for name in ("title", "description"):
        yield from domain.child(name).text.splitlines()
