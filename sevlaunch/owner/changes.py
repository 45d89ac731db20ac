"""What goes wrong in practice: the changes that the search for an explanation tries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from sevlaunch.guest_type import EPYC_MODELS, GuestType
from sevlaunch.owner.cpu import describe_signature, known_signatures, signature_of
from sevlaunch.owner.digest import Launch
from sevlaunch.owner.firmware import Firmware
from sevlaunch.owner.setup import DEFAULT, VMSA_NAMES, Setup
from sevlaunch.profile.policy import SEV_POLICY, describe_policy
from sevlaunch.sevapi.kernel_hashes import NO_INITRD, KernelHashes, cmdline_hash

MAX_VCPUS = 512
EVIDENCE = "evidence"

# SEV_FEATURES of the VMSA, AMD 24593 table B-4: SNPActive (bit 0), DebugSwap (bit 5).
_GUEST_FEATURES = (0x0, 0x1, 0x20, 0x21)
# Size of the variable store before the code: edk2's OvmfPkg/Include/Fdf/OvmfPkgDefines.fdf.inc, builds of 4 and 2 MiB.
_VARS_BYTES = (0x84000, 0x20000)


class Change(Struct, frozen=True):
    """``subject`` were ``value``, and not ``said``, as ``source`` says."""

    subject: str
    value: str
    said: str
    source: str

    def __str__(self) -> str:
        return f"{self.subject} were {self.value} ({self.source} says {self.said})"


class LaunchChange(Struct, frozen=True):
    """A change of what is measured."""

    change: Change
    apply: Callable[[Launch], Launch]

    @property
    def subject(self) -> str:
        """What it changes; two changes of the same don't go together."""
        return self.change.subject


class Message(Struct, frozen=True):
    """What MEASURE is computed over, and the key: AMD 55766, LAUNCH_MEASURE."""

    tik: bytes
    policy: int
    api_major: int
    api_minor: int
    build_id: int
    digest: bytes


class MessageChange(Struct, frozen=True):
    """A change of what stands beside the digest."""

    change: Change
    apply: Callable[[Message], Message]

    @property
    def subject(self) -> str:
        """What it changes; two changes of the same don't go together."""
        return self.change.subject


class Known(Struct, frozen=True):
    """What else the owner has at hand: the hashes of a kernel that is not to be measured, and variable stores."""

    kernel: KernelHashes | None = None
    cmdline: bytes | None = None
    variables: tuple[tuple[str, bytes], ...] = ()


def launch_changes(setup: Setup, generations: Sequence[bool], known: Known) -> Iterator[LaunchChange]:
    """The changes of a launch; those of the kernel's presence come before those of its command line.

    :param generations: the generations of VMSA pages that were expected, as ``init2``.
    """
    said = _Said(setup)
    launch = setup.launch
    if launch.guest_type.encrypts_registers:
        yield from _vcpus(said, launch)
        for init2 in sorted(set(VMSA_NAMES) - set(generations)):
            expected = VMSA_NAMES[not init2]
            yield said.change("the VMSA generation", VMSA_NAMES[init2], expected, "vmsa", {"init2": init2})
        yield from _signatures(said, launch)
        yield from _features(said, launch)
    yield from _types(said, launch)
    yield from _kernels(said, launch, known)
    yield from _cmdlines(said, setup, known)
    yield from _firmwares(said, launch, known)


class _Said:
    """Makes changes that name who said the present value."""

    def __init__(self, setup: Setup) -> None:
        self._sources = setup.sources

    def source(self, name: str) -> str:
        return self._sources.get(name, DEFAULT)

    def change(self, subject: str, value: str, said: str, name: str, fields: dict[str, object]) -> LaunchChange:
        return LaunchChange(
            Change(subject, value, said, self.source(name)),
            lambda launch: replace(launch, **fields),
        )


def _vcpus(said: _Said, launch: Launch) -> Iterator[LaunchChange]:
    for vcpus in range(1, MAX_VCPUS + 1):
        if vcpus != launch.vcpus:
            yield said.change("vcpus", str(vcpus), str(launch.vcpus), "vcpus", {"vcpus": vcpus})


def _signatures(said: _Said, launch: Launch) -> Iterator[LaunchChange]:
    for value in known_signatures().values():
        if value != launch.cpu_signature:
            yield said.change(
                "the CPU signature",
                describe_signature(value),
                describe_signature(launch.cpu_signature),
                "cpu signature",
                {"cpu_signature": value},
            )


def _features(said: _Said, launch: Launch) -> Iterator[LaunchChange]:
    for value in _GUEST_FEATURES:
        if value != launch.guest_features:
            yield said.change(
                "guest features",
                f"{value:#x}",
                f"{launch.guest_features:#x}",
                "guest features",
                {"guest_features": value},
            )


def _types(said: _Said, launch: Launch) -> Iterator[LaunchChange]:
    if launch.guest_type is GuestType.SEV_ES:
        yield said.change("the type", "sev", "sev-es", "type", {"guest_type": GuestType.SEV})
        return
    fields = {"guest_type": GuestType.SEV_ES, "cpu_signature": signature_of(EPYC_MODELS[0])}
    for init2, name in VMSA_NAMES.items():
        yield said.change("the type", f"sev-es (VMSA {name})", "sev", "type", {**fields, "init2": init2})


def _kernels(said: _Said, launch: Launch, known: Known) -> Iterator[LaunchChange]:
    if launch.kernel is not None:
        yield said.change("kernel hashes", "off", "on", "kernel", {"kernel": None})
        if launch.kernel.initrd != NO_INITRD:
            without = replace(launch.kernel, initrd=NO_INITRD)
            yield said.change("the initrd", "left out", "there is one", "initrd", {"kernel": without})
    elif known.kernel is not None:
        yield said.change("kernel hashes", "on", "off", "kernel", {"kernel": known.kernel})


def _cmdlines(said: _Said, setup: Setup, known: Known) -> Iterator[LaunchChange]:
    text = known.cmdline if setup.cmdline is None else setup.cmdline
    if text is None or (setup.launch.kernel is not None and setup.cmdline is None):
        return
    for variant, hashed in _spellings(text).items():
        change = Change("the command line", variant, _shown(text), said.source("cmdline"))
        yield LaunchChange(change, _with_cmdline(hashed))


def _with_cmdline(hashed: bytes) -> Callable[[Launch], Launch]:
    def apply(launch: Launch) -> Launch:
        return replace(launch, kernel=replace(launch.kernel, cmdline=hashed)) if launch.kernel else launch

    return apply


def _spellings(text: bytes) -> dict[str, bytes]:
    """The hash of each other spelling of a command line, by the spelling."""
    variants = (
        text + b"\n",
        text.rstrip(b"\n"),
        text + b"\r\n",
        text + b" ",
        text.rstrip(b" "),
        b" " + text,
        text.lstrip(b" "),
        b" " + text + b" ",
        text.strip(),
        text.strip() + b"\n",
        b" ".join(text.split()),
        text + b" \n",
        text + b"\0",
        b'"' + text + b'"',
        text.strip(b"\"'"),
        b"",
    )
    found = {_shown(variant): cmdline_hash(variant) for variant in variants if variant != text}
    return {**found, "hashed without its final NUL": hashlib.sha256(text).digest()}


def _shown(text: bytes) -> str:
    return repr(text.decode(errors="backslashreplace"))


def _firmwares(said: _Said, launch: Launch, known: Known) -> Iterator[LaunchChange]:
    image = launch.firmware.image
    others: list[tuple[str, bytes]] = []
    for size in _VARS_BYTES:
        if len(image) > size:
            others.append((f"its code alone, without the first {size:#x} bytes", image[size:]))
    for name, content in known.variables:
        others.append((f"{name} and then the code, as one image", content + image))
        others.append((f"the code and then {name}, as one image", image + content))
        if image.startswith(content) and len(image) > len(content):
            others.append((f"its code alone, without {name}", image[len(content) :]))
    for value, content in others if image else ():
        # Not of_image(): what results need not have a table.
        other = Firmware(hashlib.sha256(content).digest(), content)
        yield said.change("the firmware", value, "the whole file", "firmware", {"firmware": other})


def message_changes(
    message: Message, reported_policy: int | None, *, tek: bytes = b"", digests: dict[str, bytes], policy_source: str
) -> Iterator[MessageChange]:
    """The changes of the message.

    :param reported_policy: the policy in the evidence.
    :param tek: the other transport key, where it is at hand.
    :param digests: digests by what would have to be, where there is no launch to compute them from.
    """
    for value, digest in digests.items():
        change = Change("the VMSA generation", value, "another one", "lock")
        yield MessageChange(change, _replacing(digest=digest))
    flipped = (message.policy ^ bit for bit in SEV_POLICY.bits.values())
    candidates = [policy for policy in (reported_policy, *flipped) if policy is not None and policy < 1 << 32]
    for policy in dict.fromkeys(candidates):
        if policy != message.policy:
            change = Change("the policy", _policy(policy), _policy(message.policy), policy_source)
            yield MessageChange(change, _replacing(policy=policy))
    if tek and tek != message.tik:
        change = Change("the TIK", "what --tek has: the files are exchanged", "otherwise", "--tik")
        yield MessageChange(change, _replacing(tik=tek))
    for field, subject in (
        ("api_minor", "the API minor version"),
        ("build_id", "the build"),
        ("api_major", "the API major version"),
    ):
        said = getattr(message, field)
        for byte in range(256):
            if byte != said:
                yield MessageChange(Change(subject, str(byte), str(said), EVIDENCE), _replacing(**{field: byte}))


def _replacing(**fields: object) -> Callable[[Message], Message]:
    return lambda message: replace(message, **fields)


def _policy(policy: int) -> str:
    return f"{policy:#x} ({', '.join(describe_policy(policy, SEV_POLICY)) or 'no bits'})"
