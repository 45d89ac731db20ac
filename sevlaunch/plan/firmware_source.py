"""Where a guest's firmware comes from: named by the profile, or chosen among what the host has."""

from __future__ import annotations

from msgspec import Struct

from sevlaunch.host.firmware_choice import Boots, Wanted, choose, is_stateless, lacking_features
from sevlaunch.host.firmware_facts import IGVM, FirmwareDescriptor, FirmwareImage
from sevlaunch.plan.context import Context
from sevlaunch.plan.option import Choice, Reason, fact, rule


class Source(Struct, frozen=True, kw_only=True):
    """Firmware that was named or chosen.

    ``through_bios``: QEMU gets it with -bios, else on pflash. ``template``: what the guest's variables start from.
    ``combined``: code and variables are one file.
    """

    code: Choice[str]
    code_format: Choice[str]
    through_bios: bool
    template: str | None = None
    template_format: Choice[str] = Choice("raw", rule("there is no template"))
    template_reason: Reason = rule("there is none")
    requires_smm: bool = False
    combined: bool = False
    passed_over: tuple[str, ...] = ()


def named_source(context: Context) -> Source | None:
    """The firmware that the profile names, judged by its image; None where it names none."""
    wanted = context.profile.firmware
    path, key = (wanted.image, "image") if wanted.image else (wanted.code, "code")
    if path is None:
        return None
    descriptor = next((one for one in context.host.firmware if one.executable == path), None)
    image = context.host.firmware_image(path)
    code = context.choice(path, "firmware", key)
    code_format = _format_of(context, path, descriptor.executable_format if descriptor else "raw")
    if image and image.format == "igvm":
        context.refuse(f"{path} is {IGVM}", "firmware", key)
        return Source(code=code, code_format=code_format, through_bios=bool(wanted.image))
    _check_features(context, path, key, image, descriptor)
    if wanted.image:
        _check_boots(context, path, image)
        seen = image if image and not image.error else FirmwareImage(path=path, format=code_format.value)
        if unfit := seen.unfit_for_bios():
            raw = seen.format == "raw"
            instead = (
                "the code of a pflash pair goes into firmware.code" if raw else f"qemu-img convert -O raw {path} F"
            )
            context.refuse(f"{path} {'has' if raw else 'is'} {unfit}", "firmware", "image", hint=instead)
        return Source(code=code, code_format=code_format, through_bios=True)
    template = wanted.vars or (descriptor.nvram_template if descriptor else None)
    said = descriptor.nvram_template_format if descriptor and not wanted.vars else "raw"
    return Source(
        code=code,
        code_format=code_format,
        through_bios=False,
        template=template,
        template_format=_format_of(context, template, said) if template else code_format,
        template_reason=context.why("firmware", "vars", default="NVRAM template of the firmware's descriptor"),
        requires_smm=descriptor is not None and "requires-smm" in descriptor.features,
    )


def seen_format(context: Context, path: str) -> Choice[str] | None:
    """The format of an image, or of a store of variables, by its magic; None where nobody could look."""
    image = context.host.firmware_image(path)
    if image is None or (image.format == "raw" and image.error):
        return None
    return Choice(image.format, rule("by its magic"))


def chosen_source(context: Context) -> Source | None:
    """The first firmware of the host that fits, and why the others were passed over; None with a noted problem."""
    security = context.profile.security
    choice = choose(
        context.host,
        Wanted(
            guest_type=security.guest_type,
            machine=context.machine_type,
            pflash=security.has_pflash,
            boots=_boots(context),
            stateless=security.measures_boot,
            secure_boot=bool(context.profile.firmware.secure_boot),
        ),
    )
    passed_over = tuple(f"{file}: {reason}" for file, reason in choice.passed_over.items())
    if not choice.fitting:
        what = f"no UEFI firmware for {'an ordinary' if not security.encrypted else 'a ' + security.type} guest"
        context.lack(
            f"{what} is on this host" + (f"; passed over: {'; '.join(passed_over)}" if passed_over else ""),
            hint=_install(context),
        )
        return None
    return _of_descriptor(context, choice.fitting[0], passed_over)


def _of_descriptor(context: Context, chosen: FirmwareDescriptor, passed_over: tuple[str, ...]) -> Source:
    path = chosen.executable
    image = context.host.firmware_image(path)
    _check_description(context, path, image, chosen)
    described = (
        f"firmware descriptor {chosen.file}" if chosen.file else "a look into it; no firmware descriptor names it"
    )
    code = Choice(path, fact(described))
    code_format = _format_of(context, path, chosen.executable_format)
    if is_stateless(chosen):
        _check_boots(context, path, image)
        on_flash = chosen.device == "flash" and context.profile.security.has_pflash
        return Source(code=code, code_format=code_format, through_bios=not on_flash, passed_over=passed_over)
    combined = chosen.mode == "combined"
    template = path if combined else chosen.nvram_template
    said = chosen.executable_format if combined else chosen.nvram_template_format
    return Source(
        code=code,
        code_format=code_format,
        through_bios=False,
        template=template,
        template_format=_format_of(context, template, said) if template else code_format,
        template_reason=fact(f"NVRAM template of {chosen.file}"),
        requires_smm="requires-smm" in chosen.features,
        combined=combined,
        passed_over=passed_over,
    )


def _install(context: Context) -> str:
    security = context.profile.security
    from sevlaunch.host.packages import install_firmware

    return install_firmware(context.host.distribution, security.guest_type, kernel_hashes=security.measures_boot)


def _boots(context: Context) -> Boots:
    profile = context.profile
    if profile.boot.is_direct:
        return "hashes" if profile.security.measures_boot else "kernel"
    return "disk" if profile.disks else "nothing"


def _format_of(context: Context, path: str, said: str) -> Choice[str]:
    """The format of an image: by its magic, or where nobody looked, as its name or its descriptor says."""
    if seen := seen_format(context, path):
        return seen
    if path.endswith(".qcow2"):
        return Choice("qcow2", rule("by its name"))
    return Choice(said, rule("what firmware is, unless its descriptor says otherwise"))


def _check_features(
    context: Context, path: str, key: str, image: FirmwareImage | None, descriptor: FirmwareDescriptor | None
) -> None:
    """Note what a named firmware can't do for this guest, or what nobody knows of it."""
    security = context.profile.security
    if not security.encrypted:
        return
    if image and not image.error:
        if lacking := image.lacks_for(security.guest_type, kernel_hashes=security.measures_boot):
            context.refuse(
                f"{path} can't start a {security.type} guest: {lacking}",
                "firmware",
                key,
                hint=f"leave firmware out, for what this host has; or {_install(context)}",
            )
            return
    elif descriptor is None:
        context.warn(f"no firmware descriptor says whether {path} supports {security.type}, and it was not looked into")
    if descriptor:
        _check_description(context, path, image, descriptor)


def _check_description(
    context: Context, path: str, image: FirmwareImage | None, descriptor: FirmwareDescriptor
) -> None:
    """Warn of a descriptor that says less than the guest needs: the image decides."""
    lacking = lacking_features(descriptor, context.profile.security.guest_type)
    if lacking and descriptor.file:
        found = "the image has what it takes" if image and not image.error else "it was not looked into"
        context.warn(f"the descriptor {descriptor.file} does not say {' and '.join(lacking)} of {path}: {found}")


def _check_boots(context: Context, path: str, image: FirmwareImage | None) -> None:
    """Warn of a stateless image that may not boot what this guest boots."""
    if not context.profile.security.encrypted or (image and not image.older_amdsev):
        return
    found = "is an AmdSev build from before 2024" if image else "was not looked into, and may be an old AmdSev build"
    boots = _boots(context)
    if boots == "disk":
        context.warn(
            f"{path} {found}: those from before May 2023 (edk2 commit 81dc0d8b4c) boot no disk; if the guest stays at "
            "the firmware, take a newer image, or boot a kernel (boot.kernel)"
        )
    if boots == "kernel" and image:
        context.warn(f"{path} {found}, which starts a kernel only if its hash is measured: set security.kernel_hashes")
