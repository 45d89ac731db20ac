"""Which firmware, and how QEMU gets it: on pflash, or as a stateless image through ``-bios``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sevlaunch.host.facts import FirmwareDescriptor
from sevlaunch.host.firmware_choice import FEATURES, Wanted, choose, is_stateless
from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, Reason, fact, rule
from sevlaunch.plan.part import Part
from sevlaunch.remedies import INSTALL_OVMF


class FirmwarePlan(Part, frozen=True, kw_only=True):
    """``kind`` pflash: ``code`` and perhaps ``vars`` on flash units 0 and 1; image: ``code`` through -bios.

    ``own_vars``: the variables lie in sevlaunch's folder for what outlives guests.
    """

    kind: Literal["pflash", "image"]
    code: Choice[str]
    vars: Choice[str] | None
    vars_template: str | None
    secure_flash: Choice[bool]
    passed_over: tuple[str, ...]
    own_vars: bool = False

    @property
    def needs(self) -> Needs:
        """The code is read, the variables are read and written; they are a copy of the template."""
        files = [NeededFile(self.code.value, "firmware", "install OVMF, or correct firmware in the profile")]
        if self.vars:
            file, template = self.vars.value, self.vars_template
            remedy = "install OVMF, or correct firmware.vars" if template else "name a template in firmware.vars"
            files.append(NeededFile(file, "NVRAM", remedy, True, template=template, granted=self.own_vars))
        return Needs(files=tuple(files))

    def machine_properties(self) -> Iterator[Parameter]:
        """What puts firmware on pflash."""
        if self.kind == "pflash":
            yield Parameter("pflash0", "pflash0", self.code.reason)
            if self.vars:
                yield Parameter("pflash1", "pflash1", self.vars.reason)
        if self.secure_flash.value:
            yield self.secure_flash.parameter("smm")

    def options(self) -> Iterator[Option]:
        """-bios, or the block devices of pflash."""
        if self.kind == "image":
            yield Option("-bios", (self.code.parameter(""),), verbatim=True)
            return
        yield _flash_unit(0, self.code, read_only=True)
        if self.vars:
            yield _flash_unit(1, self.vars, read_only=False)
        if self.secure_flash.value:
            reason = self.secure_flash.reason
            yield Option(
                "-global",
                (
                    Parameter("driver", "cfi.pflash01", reason),
                    Parameter("property", "secure", reason),
                    Parameter("value", "on", reason),
                ),
            )


def resolve_firmware(context: Context) -> FirmwarePlan | None:
    """The firmware for the profile; None with a noted problem where there is none."""
    wanted = context.profile.firmware
    if wanted.image:
        descriptor = _described(context, wanted.image)
        _check_features(context, descriptor, "image", wanted.image)
        return _image(context.choice(wanted.image, "firmware", "image"))
    if wanted.code:
        descriptor = _described(context, wanted.code)
        _check_features(context, descriptor, "code", wanted.code)
        template = wanted.vars or (descriptor.nvram_template if descriptor else None)
        reason = context.why("firmware", "vars", default="NVRAM template of the firmware's descriptor")
        return _pflash(context, context.choice(wanted.code, "firmware", "code"), template, reason, descriptor, ())
    chosen, passed_over = _choose(context)
    if chosen is None:
        features = " and ".join(FEATURES.get(context.profile.security.guest_type, ()))
        context.lack(
            "no UEFI firmware"
            + (f" with {features}" if features else "")
            + " is described on this host"
            + "".join(f"\n      passed over {line}" for line in passed_over),
            hint=INSTALL_OVMF,
        )
        return None
    code = Choice(chosen.executable, fact(f"firmware descriptor {chosen.file}"))
    if is_stateless(chosen):
        return _image(code, passed_over)
    return _pflash(context, code, chosen.nvram_template, fact(f"NVRAM template of {chosen.file}"), chosen, passed_over)


_NOT_SECURE = Choice(False, rule("the firmware does not need SMM"))


def _flash_unit(unit: int, file: Choice[str], *, read_only: bool) -> Option:
    reason = rule(f"pflash unit {unit} holds the firmware's {'code' if unit == 0 else 'variables'}")
    return Option(
        "-blockdev",
        (
            Parameter("driver", "raw", reason),
            Parameter("node-name", f"pflash{unit}", reason),
            Parameter("read-only", "on" if read_only else "off", reason),
            Parameter("file.driver", "file", reason),
            Parameter("file.filename", file.value, file.reason),
        ),
    )


def _image(code: Choice[str], passed_over: tuple[str, ...] = ()) -> FirmwarePlan:
    return FirmwarePlan(
        kind="image", code=code, vars=None, vars_template=None, secure_flash=_NOT_SECURE, passed_over=passed_over
    )


def _pflash(
    context: Context,
    code: Choice[str],
    template: str | None,
    template_reason: Reason,
    descriptor: FirmwareDescriptor | None,
    passed_over: tuple[str, ...],
) -> FirmwarePlan:
    security = context.profile.security
    secure = bool(descriptor and "requires-smm" in descriptor.features)
    if secure and not security.has_smm:
        context.refuse(
            f"the firmware {code.value} needs SMM, which SEV-ES can't have",
            "firmware",
            hint="choose one without requires-smm",
        )
    nvram = context.profile.firmware.nvram
    if nvram:
        variables: Choice[str] | None = context.choice(nvram, "firmware", "nvram")
    elif template:
        own = str(context.state_folder / "VARS.fd")
        variables = Choice(own, rule(f"the guest's own copy, kept between runs, of {template} ({template_reason})"))
    else:
        variables = None
    if variables and security.wants_attestation:
        context.warn(
            f"the NVRAM {variables.value} is not measured, and the host can write to it: what the owner verifies does "
            "not cover the firmware's variables; a stateless image (firmware.image, OVMF.amdsev.fd) has none"
        )
    return FirmwarePlan(
        kind="pflash",
        code=code,
        vars=variables,
        vars_template=template,
        secure_flash=Choice(True, fact("the firmware's descriptor says requires-smm")) if secure else _NOT_SECURE,
        passed_over=passed_over,
        own_vars=nvram is None,
    )


def _described(context: Context, path: str) -> FirmwareDescriptor | None:
    return next((descriptor for descriptor in context.host.firmware if descriptor.executable == path), None)


def _check_features(context: Context, descriptor: FirmwareDescriptor | None, key: str, path: str) -> None:
    needed = FEATURES.get(context.profile.security.guest_type, ())
    if not needed:
        return
    if descriptor is None:
        context.warn(f"no firmware descriptor says whether {path} supports {context.profile.security.type}")
        return
    lacking = [feature for feature in needed if feature not in descriptor.features]
    if lacking:
        context.refuse(
            f"the firmware's descriptor {descriptor.file} lacks {' and '.join(lacking)}, which the guest needs",
            "firmware",
            key,
            hint="use firmware: auto, or a firmware built for it (OVMF.amdsev.fd)",
        )


def _choose(context: Context) -> tuple[FirmwareDescriptor | None, tuple[str, ...]]:
    """The first descriptor that fits, and why the others were passed over.

    A stateless image goes first where attestation counts (kernel hashes).
    """
    security = context.profile.security
    choice = choose(
        context.host.firmware,
        Wanted(
            guest_type=security.guest_type,
            machine=context.qemu.machines.get(context.profile.machine, context.profile.machine),
            pflash=security.has_pflash,
            stateless=security.measures_boot,
            secure_boot=bool(context.profile.firmware.secure_boot),
        ),
    )
    passed_over = tuple(f"{file}: {reason}" for file, reason in choice.passed_over.items())
    return (choice.fitting[0] if choice.fitting else None), passed_over
