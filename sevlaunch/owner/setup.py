"""What the owner expects of a launch: from the profile, a saved host, and what he says himself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from sevlaunch.errors import UsageError
from sevlaunch.files import hash_file
from sevlaunch.guest_type import EPYC_MODELS, GuestType
from sevlaunch.owner.cpu import describe_signature, signature, signature_of, with_features
from sevlaunch.owner.digest import DEFAULT_GUEST_FEATURES, Digests, Launch, Vmm
from sevlaunch.owner.firmware import Firmware, read_firmware
from sevlaunch.owner.profile_boot import boot_of_profile
from sevlaunch.plan.direct_boot import DirectBoot
from sevlaunch.profile.policy import SEV_ES, default_policy, parse_policy, policy_format
from sevlaunch.sevapi.kernel_hashes import NO_INITRD, KernelHashes, cmdline_hash

# An owner without a profile, and so without the models of it, does not wait for them.
if TYPE_CHECKING:
    from sevlaunch.host.model import Host
    from sevlaunch.plan.plan import Plan
    from sevlaunch.profile.loader import LoadedProfile
    from sevlaunch.profile.model import Profile, SevSecurity, SnpSecurity

# What the two generations of VMSA pages are called, by init2.
VMSA_NAMES = {False: "es-init", True: "init2"}

PROFILE, DEFAULT, HOST = "profile", "default", "host"
# What the input is called that is an initrd with what the profile puts behind it.
JOINED_INITRD = "initrd with credentials"


class Options(Struct, frozen=True):
    """What the owner says himself. None: as the profile says; hashes have 32 bytes.

    ``firmware_hash``: 32 bytes, or for SNP the 48 of the launch digest after the image's own pages. ``init2``: the
    generation of VMSA pages; None: what evidence decides, or both. For SNP, False is what kernels before 6.10 made.
    """

    guest_type: GuestType | None = None
    firmware: Path | None = None
    firmware_hash: bytes | None = None
    kernel: Path | None = None
    kernel_hash: bytes | None = None
    initrd: Path | None = None
    initrd_hash: bytes | None = None
    cmdline: bytes | None = None
    cmdline_hash: bytes | None = None
    vcpus: int | None = None
    cpu: str | None = None
    cpu_signature: int | None = None
    init2: bool | None = None
    guest_features: int | None = None
    vmm: Vmm = "QEMU"
    policy: str | None = None


class Input(Struct, frozen=True):
    """One thing that went into a digest: its value for people, SHA-256 where it is content, and who said it."""

    name: str
    value: str
    sha256: str | None
    source: str


class Setup(Struct, frozen=True):
    """A launch as the owner expects it.

    ``generations``: the generations of VMSA pages that are as good as each other, as ``init2``; one for all but SEV-ES.
    ``cmdline``: the command line without its NUL, where it is known as text.
    """

    launch: Launch
    generations: tuple[bool, ...]
    policy: int
    inputs: tuple[Input, ...]
    cmdline: bytes | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def digests(self) -> dict[str, bytes]:
        """The launch digest by the name of the VMSA generation; of the name "" for all but SEV-ES."""
        shared = Digests()
        if not self.launch.guest_type.has_vmsa_generations:
            return {"": shared.of(self.launch)}
        return {VMSA_NAMES[init2]: shared.of(replace(self.launch, init2=init2)) for init2 in self.generations}


def resolve_setup(
    loaded: LoadedProfile | None, options: Options, *, plan: Plan | None = None, host: Host | None = None
) -> Setup:
    """The setup that ``options``, then the profile, say.

    :param plan: the profile's plan for the host, for what the profile leaves to the host.
    :param host: the host itself, for a profile with the CPU model of the host.
    :raise UsageError: when something is missing or can't be read.
    """
    return _Resolver(loaded.profile if loaded else None, options, plan, host).resolve()


class _Resolver:
    """One run of :func:`resolve_setup`; notes each input as it goes."""

    def __init__(self, profile: Profile | None, options: Options, plan: Plan | None, host: Host | None) -> None:
        self._options = options
        self._plan = plan
        self._host = host
        self._profile = profile
        self._security = _security(profile)
        self._type = _guest_type(self._security, options)
        self._inputs: list[Input] = []

    def resolve(self) -> Setup:
        guest_type = self._type
        self._require_measured()
        self._note("type", guest_type, None, PROFILE if self._profile else "--type")
        policy = self._policy()
        firmware, on_pflash = self._firmware()
        kernel, cmdline = self._kernel()
        vcpus = self._vcpus()
        launch = Launch(guest_type, firmware, kernel, vcpus, vmm=self._options.vmm)
        generations: tuple[bool, ...] = (True,)
        if guest_type.encrypts_registers:
            generations = self._generations(on_pflash)
            launch = replace(
                launch,
                cpu_signature=self._cpu_signature(),
                init2=generations[0],
                zero_fpu=self._zero_fpu(),
                guest_features=self._guest_features(),
            )
        return Setup(
            launch=launch,
            generations=generations,
            policy=policy,
            inputs=tuple(self._inputs),
            cmdline=cmdline,
            sources={one.name: one.source for one in self._inputs},
        )

    def _note(self, name: str, value: str, content: bytes | None, source: str) -> None:
        self._inputs.append(Input(name, value, content.hex() if content else None, source))

    def _require_measured(self) -> None:
        """Refuse what a SEV launch does not measure: it would say something about the digest, and count for nothing."""
        options = self._options
        if self._type.encrypts_registers:
            return
        said = {
            "--vcpus": options.vcpus,
            "--cpu": options.cpu,
            "--cpu-signature": options.cpu_signature,
            "--vmsa": options.init2,
            "--guest-features": options.guest_features,
            "--vmm-type": None if options.vmm == "QEMU" else options.vmm,
        }
        unmeasured = [name for name, value in said.items() if value is not None]
        if unmeasured:
            raise UsageError(
                f"a {self._type} launch measures no vCPUs, and {', '.join(unmeasured)} would change nothing",
                hint="leave it out, or give another --type",
            )

    def _policy(self) -> int:
        text = self._options.policy
        if text is not None:
            policy, source = _parse_policy(text, self._type), "--policy"
        elif self._security and self._security.policy is not None:
            policy, source = self._security.policy, PROFILE
        else:
            policy, source = default_policy(self._type), DEFAULT
        self._note("policy", f"{policy:#x}", None, source)
        return policy

    def _firmware(self) -> tuple[Firmware, bool]:
        options = self._options
        wanted = self._profile.firmware if self._profile else None
        on_pflash = bool(wanted and wanted.code)
        if options.firmware_hash:
            self._check_hash(options.firmware_hash)
        if options.firmware_hash and self._type is not GuestType.SEV_SNP:
            firmware = Firmware(options.firmware_hash)
            self._note("firmware", "(known by its hash)", firmware.sha256, "--firmware-hash")
            return firmware, on_pflash
        if options.firmware:
            file, source = options.firmware, "--firmware"
        elif self._plan:
            file, source = Path(self._plan.firmware.code.value), HOST if not (wanted and wanted.image) else PROFILE
            on_pflash = self._plan.firmware.kind == "pflash"
        elif wanted and (wanted.code or wanted.image):
            file, source = Path(wanted.code or wanted.image or ""), PROFILE
        else:
            raise UsageError(
                "which firmware the guest has depends on the host (firmware: auto)"
                if self._profile
                else "wanted a firmware",
                hint="give --firmware FILE" + (", or the saved host: --host FILE" if self._profile else ""),
            )
        firmware = read_firmware(file, snp_pages=options.firmware_hash or b"")
        self._note("firmware", str(file), firmware.sha256, source)
        return firmware, on_pflash

    def _check_hash(self, known: bytes) -> None:
        wanted = 48 if self._type is GuestType.SEV_SNP else 32
        if len(known) != wanted:
            raise UsageError(
                f"--firmware-hash: wanted {wanted} bytes for {self._type}, found {len(known)}",
                hint="SNP: the launch digest after the image's own pages; else the image's SHA-256",
            )

    def _kernel(self) -> tuple[KernelHashes | None, bytes | None]:
        options = self._options
        given = options.kernel or options.kernel_hash
        measured = self._security is not None and self._security.kernel_hashes
        if not given and not measured:
            if options.initrd or options.initrd_hash or options.cmdline is not None or options.cmdline_hash:
                raise UsageError(
                    "initrd and command line are measured with a kernel only, and no kernel is measured here",
                    hint="give --kernel FILE, or set security.kernel_hashes",
                )
            return None, None
        boot, source = self._boot(), PROFILE
        if boot and self._profile and self._profile.boot.from_:
            source = f"{PROFILE}: from {self._profile.boot.from_}"
        kernel = self._hash("kernel", options.kernel, options.kernel_hash, boot.kernel if boot else None, source)
        if boot and boot.says and not given:
            self._note("kernel says", boot.says, None, source)
        initrd = self._initrd(boot, source)
        assert kernel is not None, "a profile with kernel_hashes has a kernel"
        if options.cmdline_hash:
            self._note("cmdline", "(known by its hash)", options.cmdline_hash, "--cmdline-hash")
            return KernelHashes(kernel, initrd or NO_INITRD, options.cmdline_hash), None
        text = options.cmdline
        if text is not None:
            source = "--cmdline"
        else:
            self._root()
            said = boot.cmdline if boot else None
            text, source = (said or "").encode(), source if said is not None else DEFAULT
        hashes = KernelHashes(kernel, initrd or NO_INITRD, cmdline_hash(text))
        self._note("cmdline", repr(text.decode(errors="backslashreplace")), hashes.cmdline, source)
        return hashes, text

    def _boot(self) -> DirectBoot | None:
        """What the profile boots, as far as the owner does not say it all himself."""
        options, profile = self._options, self._profile
        kernel, initrd = options.kernel or options.kernel_hash, options.initrd or options.initrd_hash
        said = kernel and initrd and (options.cmdline is not None or options.cmdline_hash)
        if profile is None or said or not profile.boot.is_direct:
            return None
        with_verity = options.cmdline is None and not options.cmdline_hash
        return boot_of_profile(profile, self._plan, with_verity=with_verity)

    def _root(self) -> None:
        """Look at a root under dm-verity, whose hash is on the command line."""
        if self._profile is None or self._profile.boot.verity is None:
            return
        # Few guests have such a root.
        from sevlaunch.owner.verity import check_here

        checked = bool(self._plan and self._plan.boot.verity and self._plan.boot.verity.checked)
        self._note("root hash", check_here(self._profile, look=not checked), None, PROFILE)

    def _initrd(self, boot: DirectBoot | None, source: str) -> bytes | None:
        """The hash of what QEMU is given: the initrd, with the credentials that the profile puts behind it."""
        options, in_profile = self._options, boot.initrd if boot else None
        initrd = self._hash("initrd", options.initrd, options.initrd_hash, in_profile, source)
        said = self._profile.boot.credentials if self._profile else {}
        # A hash that the owner says himself is that of all of it.
        if initrd is None or options.initrd_hash or not said:
            return initrd
        # Few guests have credentials.
        from sevlaunch.image.initrd import joined_hash

        for name, content in sorted(said.items()):
            self._note(f"credential {name}", f"{len(content)} bytes", hashlib.sha256(content).digest(), PROFILE)
        file = options.initrd or Path(in_profile or "")
        joined = joined_hash(file, said)
        self._note(JOINED_INITRD, str(file), joined, PROFILE)
        return joined

    def _hash(
        self, name: str, file: Path | None, known: bytes | None, in_profile: str | None, source: str
    ) -> bytes | None:
        if known:
            self._note(name, "(known by its hash)", known, f"--{name}-hash")
            return known
        source = f"--{name}" if file else source
        file = file or (Path(in_profile) if in_profile else None)
        if file is None:
            return None
        content = hash_file(file, name)
        self._note(name, str(file), content, source)
        return content

    def _vcpus(self) -> int:
        if self._options.vcpus is not None:
            vcpus, source = self._options.vcpus, "--vcpus"
        elif self._profile:
            vcpus, source = self._profile.cpu.count, PROFILE
        else:
            vcpus, source = 1, DEFAULT
        # A SEV launch does not measure them.
        if self._type.encrypts_registers:
            self._note("vcpus", str(vcpus), None, source)
        return vcpus

    def _cpu_signature(self) -> int:
        value, source = self._signature()
        if source in (PROFILE, DEFAULT, HOST) and self._profile:
            value = with_features(value, tuple(self._profile.cpu.features))
        self._note("cpu signature", describe_signature(value), None, source)
        return value

    def _signature(self) -> tuple[int, str]:
        options = self._options
        if options.cpu_signature is not None:
            return options.cpu_signature, "--cpu-signature"
        if options.cpu:
            return signature_of(options.cpu), "--cpu"
        model = self._profile.cpu.model if self._profile else "auto"
        source = DEFAULT if model == "auto" else PROFILE
        if model == "auto":
            model = EPYC_MODELS[0]
        elif model == "host" and self._host:
            cpu = self._host.cpu
            return signature(cpu.family, cpu.model, cpu.stepping), HOST
        return signature_of(model), source

    def _guest_features(self) -> int:
        said = self._options.guest_features
        value = DEFAULT_GUEST_FEATURES[self._type] if said is None else said
        self._note("guest features", f"{value:#x}", None, DEFAULT if said is None else "--guest-features")
        return value

    def _zero_fpu(self) -> bool:
        """Whether an SNP guest's pages are those of kernels that left MXCSR and the x87 control word at zero."""
        if self._type.has_vmsa_generations or self._options.init2 is None:
            return False
        self._note("vmsa", VMSA_NAMES[self._options.init2], None, "--vmsa")
        return not self._options.init2

    def _generations(self, on_pflash: bool) -> tuple[bool, ...]:
        if not self._type.has_vmsa_generations:
            return (True,)
        wanted = self._security.init2 if self._security else None
        if self._options.init2 is not None:
            generations, source = (self._options.init2,), "--vmsa"
        elif wanted is not None:
            generations, source = (wanted,), PROFILE
        elif on_pflash or (self._plan and self._plan.security and not self._plan.security.init2):
            # KVM_SEV_INIT2 has no read-only memory, which pflash needs.
            generations, source = (False,), HOST if self._plan else DEFAULT
        else:
            # Whoever launches it decides; QEMU by itself takes the older one.
            return (False, True)
        self._note("vmsa", VMSA_NAMES[generations[0]], None, source)
        return generations


def _security(profile: Profile | None) -> SevSecurity | SnpSecurity | None:
    if profile is None:
        return None
    if profile.security.type == "none":
        raise UsageError(
            f"{profile.name} has no security: nothing is measured", hint="set security.type, or give --type"
        )
    return profile.security


def _guest_type(security: SevSecurity | SnpSecurity | None, options: Options) -> GuestType:
    found = security.guest_type if security else options.guest_type
    if found is None:
        raise UsageError("wanted a profile, or the type of guest", hint="--type sev, sev-es or sev-snp")
    return found


def _parse_policy(text: str, guest_type: GuestType) -> int:
    try:
        policy = parse_policy(text, policy_format(guest_type))
    except ValueError as error:
        raise UsageError(f"--policy: {error}") from error
    if guest_type is not GuestType.SEV_SNP and bool(policy & SEV_ES) != guest_type.encrypts_registers:
        raise UsageError(
            f"--policy {policy:#x} and type {guest_type} disagree on the policy bit es",
            hint=f"use {policy ^ SEV_ES:#x}, or the other --type",
        )
    return policy
