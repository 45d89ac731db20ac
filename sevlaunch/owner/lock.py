"""The launch lock file: the hashes of all that goes into a launch, and the digests that it must give."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from sevlaunch.documents import decode, matching
from sevlaunch.errors import UsageError
from sevlaunch.files import read_bounded
from sevlaunch.guest_type import GuestType
from sevlaunch.owner.verify import Expectation

if TYPE_CHECKING:
    from sevlaunch.plan.option import Choice
    from sevlaunch.plan.plan import Plan
    from sevlaunch.profile.loader import LoadedProfile

VERSION: Final = 1
MAX_BYTES = 1 << 20

_Sha256 = Annotated[str, matching(r"[0-9a-f]{64}")]
_Digest = Annotated[str, matching(r"[0-9a-f]{64}|[0-9a-f]{96}")]

# What the guest is called, and where its files lie, is not part of a launch; what both parts of an initrd give is told
# by each.
_NOT_COMPARED = ("name", "firmware.path", "kernel.path", "initrd.path", "initrd_with_credentials")
# The name of the one digest where there are no generations of VMSA pages.
_LAUNCH = "launch"


class _Part(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class LockedFile(_Part, frozen=True, kw_only=True):
    """A file: where it lay, and its SHA-256 in hexadecimal."""

    path: str
    sha256: _Sha256


class LockedText(_Part, frozen=True, kw_only=True):
    """The command line, and the SHA-256 of it with its final NUL."""

    text: str
    sha256: _Sha256


class LockedCpu(_Part, frozen=True, kw_only=True):
    """The CPU model, and CPUID leaf 1, EAX, where the type measures it."""

    model: str
    signature: Annotated[int, Meta(ge=0, lt=1 << 32)] | None


class LockedInitData(_Part, frozen=True, kw_only=True):
    """Init-data: its digest, and SHA-256 of each of its texts by their names, all in hexadecimal.

    What is bound by its SHA-256 has that very one here.
    """

    algorithm: Literal["sha-256", "sha-384", "sha-512"]
    digest: Annotated[str, matching(r"([0-9a-f]{2}){32,64}")]
    data: dict[str, _Sha256]


class LockedIdBlock(_Part, frozen=True, kw_only=True):
    """What an ID block says beside digest and policy, and what reports show of its keys; all but SVN in hexadecimal."""

    family_id: Annotated[str, matching(r"[0-9a-f]{32}")]
    image_id: Annotated[str, matching(r"[0-9a-f]{32}")]
    guest_svn: Annotated[int, Meta(ge=0, lt=1 << 32)]
    id_key_digest: Annotated[str, matching(r"[0-9a-f]{96}")]
    author_key_digest: Annotated[str, matching(r"[0-9a-f]{96}")] | None


class Lock(_Part, frozen=True, kw_only=True):
    """The file. ``digests``: launch digests in hexadecimal, by the generation of VMSA pages; else one named launch.

    ``initrd``: the file by itself; ``credentials``: SHA-256 in hexadecimal, by their names. Both together are measured,
    with the SHA-256 ``initrd_with_credentials``.
    ``root_hash``: of a root under dm-verity, in hexadecimal; it stands in the command line, too.
    """

    lock: Annotated[Literal[1], Meta(description="version of this format")]
    name: str
    type: GuestType
    policy: Annotated[int, Meta(ge=0)]
    qemu: Annotated[str, Meta(description="QEMU's version")]
    vcpus: Annotated[int, Meta(ge=1)]
    cpu: LockedCpu
    firmware: LockedFile
    kernel: LockedFile | None
    initrd: LockedFile | None
    cmdline: LockedText | None
    kernel_hashes: bool
    host_data: Annotated[_Sha256 | None, Meta(description="SNP: 32 bytes that reports show")] = None
    initdata: LockedInitData | None = None
    id_block: Annotated[LockedIdBlock | None, Meta(description="SNP: the processor lets no other launch run")] = None
    credentials: dict[str, _Sha256] = {}
    initrd_with_credentials: _Sha256 | None = None
    root_hash: Annotated[str, matching(r"[0-9a-f]{64}|[0-9a-f]{128}")] | None = None
    digests: Annotated[dict[Annotated[str, matching(r"launch|es-init|init2")], _Digest], Meta(min_length=1)]

    def __post_init__(self) -> None:
        if not self.type.encrypted:
            raise ValueError("type: wanted an encrypted one")
        bits = 32 if self.type.measured_by_host else 64
        if self.policy >= 1 << bits:
            raise ValueError(f"policy: wanted {bits} bits for {self.type}")

    def to_json(self) -> str:
        """The file's content."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    def expectation(self, minimum_api: tuple[int, int] = (0, 0)) -> Expectation:
        """What evidence of this launch has to show."""
        return Expectation(
            guest_type=self.type,
            policy=self.policy,
            digests={"" if name == _LAUNCH else name: bytes.fromhex(text) for name, text in self.digests.items()},
            firmware_sha256=bytes.fromhex(self.firmware.sha256),
            vcpus=self.vcpus if self.type.encrypts_registers else None,
            minimum_api=minimum_api,
        )


def lock_plan(loaded: LoadedProfile, plan: Plan) -> Lock:
    """The lock of a plan; reads the files that the plan names.

    :param loaded: the profile that the plan was made from.
    :raise UsageError: when a file can't be read, nothing is measured, or the plan is not complete.
    """
    # Who reads a lock takes what is in it.
    from sevlaunch.owner.setup import JOINED_INITRD, Options, resolve_setup

    plan.require_complete()
    setup = resolve_setup(loaded, Options(), plan=plan)
    launch, boot = setup.launch, plan.boot
    credentials = loaded.profile.boot.credentials if launch.kernel else {}
    hashes = {one.name: one.sha256 for one in setup.inputs}

    def locked(name: str, path: Choice[str] | None) -> LockedFile | None:
        return LockedFile(path=path.value, sha256=hashes[name] or "") if path and name in hashes else None

    cmdline = None
    if setup.cmdline is not None:
        cmdline = LockedText(text=setup.cmdline.decode(errors="replace"), sha256=hashes["cmdline"] or "")
    return Lock(
        lock=VERSION,
        name=plan.name,
        type=launch.guest_type,
        policy=setup.policy,
        qemu=plan.qemu_version,
        vcpus=launch.vcpus,
        cpu=LockedCpu(
            model=plan.cpu.model.value,
            signature=launch.cpu_signature if launch.guest_type.encrypts_registers else None,
        ),
        firmware=LockedFile(path=plan.firmware.code.value, sha256=launch.firmware.sha256.hex()),
        kernel=locked("kernel", boot.kernel),
        initrd=locked("initrd", boot.initrd),
        credentials={name: hashes[f"credential {name}"] or "" for name in credentials},
        initrd_with_credentials=hashes.get(JOINED_INITRD),
        cmdline=cmdline,
        root_hash=next((one.value for one in setup.inputs if one.name == "root hash"), None),
        kernel_hashes=launch.kernel is not None,
        initdata=_initdata(plan),
        **_snp_parts(plan),
        digests={name or _LAUNCH: digest.hex() for name, digest in setup.digests().items()},
    )


def _initdata(plan: Plan) -> LockedInitData | None:
    if plan.initdata is None or plan.initdata.document is None:
        return None
    from sevlaunch.profile.initdata_values import bound, parse_initdata

    found = parse_initdata(plan.initdata.document)
    data = {
        name: text if bound(name, text) else hashlib.sha256(text.encode()).hexdigest()
        for name, text in found.data.items()
    }
    return LockedInitData(algorithm=found.algorithm, digest=found.digest.hex(), data=data)


def _snp_parts(plan: Plan) -> dict[str, Any]:
    """What an SNP launch has beside what it measures."""
    from sevlaunch.owner.id_block import signed_block
    from sevlaunch.plan.security import SnpProperties

    own = plan.security.own if plan.security else None
    if not isinstance(own, SnpProperties):
        return {}
    block = None
    if own.id_block and own.id_auth:
        signed = signed_block(own.id_block.value, own.id_auth.value)
        author = signed.author_key_digest if own.author_key_enabled.value else b""
        block = LockedIdBlock(
            family_id=signed.block.family_id.hex(),
            image_id=signed.block.image_id.hex(),
            guest_svn=signed.block.guest_svn,
            id_key_digest=signed.id_key_digest.hex(),
            author_key_digest=author.hex() or None,
        )
    return {"host_data": own.host_data.value.hex() if own.host_data else None, "id_block": block}


def read_lock(file: Path) -> Lock:
    """The lock in a file.

    :raise UsageError: when it can't be read, or is none.
    """
    content = read_bounded(file, "lock", MAX_BYTES)
    try:
        return decode(content, Lock)
    except ValueError as error:
        raise UsageError(
            f"lock: {file} is no lock file of version {VERSION}: {error}",
            hint="make it again: sevlaunch render PROFILE --lock > FILE",
        ) from error


def compare_locks(one: Lock, other: Lock) -> dict[str, tuple[Any, Any]]:
    """What differs between two launches: the values of both by the field's path; empty when they are the same."""
    first, second = _compared(one), _compared(other)
    paths = [path for path in {**first, **second} if path not in _NOT_COMPARED]
    return {path: (first.get(path), second.get(path)) for path in paths if first.get(path) != second.get(path)}


def _compared(lock: Lock) -> dict[str, Any]:
    """What is compared of a lock, by the field's path."""
    found = _flat(msgspec.to_builtins(lock))
    if lock.root_hash and lock.cmdline:
        # A root hash has a field of its own: the rest of the command line is compared without it.
        found["cmdline.text"] = lock.cmdline.text.replace(lock.root_hash, "ROOT_HASH")
        del found["cmdline.sha256"]
    return found


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {prefix + key: inner}
    return found
