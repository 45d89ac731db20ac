"""Which firmware, and how QEMU gets it: on pflash, or as a stateless image through ``-bios``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from sevlaunch.plan.context import Context
from sevlaunch.plan.firmware_source import Source, chosen_source, named_source, seen_format
from sevlaunch.plan.needs import NeededFile, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, fact, rule
from sevlaunch.plan.part import Part


class FirmwarePlan(Part, frozen=True, kw_only=True):
    """``kind`` pflash: ``code`` and perhaps ``vars`` on flash units 0 and 1; image: ``code`` through -bios.

    ``code_format``, ``vars_format``: raw or qcow2. ``combined``: both are one, of which the guest has a copy of its
    own, ``vars``, on unit 0. ``own_vars``: the variables lie in sevlaunch's folder for what outlives guests.
    """

    kind: Literal["pflash", "image"]
    code: Choice[str]
    code_format: Choice[str]
    vars: Choice[str] | None
    vars_format: Choice[str]
    vars_template: str | None
    secure_flash: Choice[bool]
    passed_over: tuple[str, ...]
    own_vars: bool = False
    combined: bool = False

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
            if self.vars and not self.combined:
                yield Parameter("pflash1", "pflash1", self.vars.reason)
        if self.secure_flash.value:
            yield self.secure_flash.parameter("smm")

    def options(self) -> Iterator[Option]:
        """-bios, or the block devices of pflash."""
        if self.kind == "image":
            yield Option("-bios", (self.code.parameter(""),), verbatim=True)
            return
        if self.combined and self.vars:
            yield _flash_unit(0, "code and variables", self.vars, self.vars_format, read_only=False)
        else:
            yield _flash_unit(0, "code", self.code, self.code_format, read_only=True)
            if self.vars:
                yield _flash_unit(1, "variables", self.vars, self.vars_format, read_only=False)
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
    source = named_source(context) or chosen_source(context)
    if source is None:
        return None
    return _image(source) if source.through_bios else _pflash(context, source)


_NOT_SECURE = Choice(False, rule("the firmware does not need SMM"))
_NO_VARIABLES = Choice("raw", rule("there are no variables"))


def _flash_unit(unit: int, content: str, file: Choice[str], image_format: Choice[str], *, read_only: bool) -> Option:
    reason = rule(f"pflash unit {unit} holds the firmware's {content}")
    return Option(
        "-blockdev",
        (
            image_format.parameter("driver"),
            Parameter("node-name", f"pflash{unit}", reason),
            Parameter("read-only", "on" if read_only else "off", reason),
            Parameter("file.driver", "file", reason),
            Parameter("file.filename", file.value, file.reason),
        ),
    )


def _image(source: Source) -> FirmwarePlan:
    return FirmwarePlan(
        kind="image",
        code=source.code,
        code_format=source.code_format,
        vars=None,
        vars_format=_NO_VARIABLES,
        vars_template=None,
        secure_flash=_NOT_SECURE,
        passed_over=source.passed_over,
    )


def _pflash(context: Context, source: Source) -> FirmwarePlan:
    security = context.profile.security
    if source.requires_smm and not security.has_smm:
        context.refuse(
            f"the firmware {source.code.value} needs SMM, which SEV-ES can't have",
            "firmware",
            hint="choose one without requires-smm",
        )
    elif source.requires_smm and not context.profile.smm:
        context.refuse(f"the firmware {source.code.value} needs SMM, which is off", "smm", hint="leave smm out")
    variables, vars_format = _variables(context, source)
    if variables and security.wants_attestation:
        context.warn(
            f"the NVRAM {variables.value} is not measured, and the host can write to it: what the owner verifies does "
            "not cover the firmware's variables; a stateless image (firmware.image, OVMF.amdsev.fd) has none"
        )
    secure = Choice(True, fact("the firmware's descriptor says requires-smm")) if source.requires_smm else _NOT_SECURE
    return FirmwarePlan(
        kind="pflash",
        code=source.code,
        code_format=source.code_format,
        vars=variables,
        vars_format=vars_format,
        vars_template=source.template,
        secure_flash=secure,
        passed_over=source.passed_over,
        own_vars=context.profile.firmware.nvram is None,
        combined=source.combined,
    )


def _variables(context: Context, source: Source) -> tuple[Choice[str] | None, Choice[str]]:
    """The guest's own variables, and their format: that of the store itself, or of what it is made from."""
    nvram = context.profile.firmware.nvram
    if nvram:
        return context.choice(nvram, "firmware", "nvram"), seen_format(context, nvram) or source.template_format
    if source.template is None:
        return None, _NO_VARIABLES
    ending = "fd" if source.template_format.value == "raw" else source.template_format.value
    why = f"the guest's own copy, kept between runs, of {source.template} ({source.template_reason})"
    return Choice(str(context.state_folder / f"VARS.{ending}"), rule(why)), source.template_format
