"""A TPM, through swtpm: a helper program that keeps its state on the host."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Companion, Needs
from sevlaunch.plan.option import Choice, Option, Parameter, flag, rule, verbatim
from sevlaunch.plan.part import Part
from sevlaunch.plan.places import TPM_SOCKET, TPM_STATE
from sevlaunch.profile.model import Tpm

_DRIVERS = {"tis": "tpm-tis", "crb": "tpm-crb"}
_INSTALL = "Debian, Ubuntu, Fedora, openSUSE: the package swtpm; or leave tpm out"


class TpmPlan(Part, frozen=True, kw_only=True):
    """``model``: tis or crb. swtpm listens on ``socket``, and keeps in the folder ``state`` what the TPM holds."""

    model: Choice[str]
    socket: Path
    state: Path

    @property
    def needs(self) -> Needs:
        """The program, and the folder of its state."""
        command = (
            flag("socket", rule("it listens on a socket")),
            flag("--tpm2", rule("firmware and systems of today know version 2.0 alone")),
            verbatim("--tpmstate", f"dir={self.state},mode=0600", rule("the TPM outlives a run of its guest")),
            verbatim("--ctrl", f"type=unixio,path={self.socket},mode=0600", rule("QEMU connects to it")),
            flag("--terminate", rule("it ends with the guest")),
        )
        return Needs(
            companions=(Companion("tpm", "swtpm", command, str(self.socket), _INSTALL),),
            state_folders=(str(self.state),),
        )

    def options(self) -> Iterator[Option]:
        """The connection to swtpm, and the device."""
        why = self.model.reason
        chardev = (Parameter("id", "tpm", why), Parameter("path", str(self.socket), why))
        yield Option("-chardev", (Parameter("", "socket", why), *chardev))
        yield Option(
            "-tpmdev", (Parameter("", "emulator", why), Parameter("id", "tpm0", why), Parameter("chardev", "tpm", why))
        )
        yield Option("-device", (Parameter("", _DRIVERS[self.model.value], why), Parameter("tpmdev", "tpm0", why)))


def resolve_tpm(context: Context, tpm: Tpm) -> Iterator[TpmPlan]:
    """The TPM of a profile that has one."""
    driver = _DRIVERS[tpm.model]
    context.need_device(driver, f"tpm: {tpm.model}")
    plan = TpmPlan(
        model=context.choice(tpm.model, "tpm", "model", default="every firmware with a TPM drives it"),
        socket=context.qemu_folder / TPM_SOCKET,
        state=context.state_folder / TPM_STATE,
    )
    for path in (plan.socket, plan.state):
        if "," in str(path):
            context.refuse(
                f"swtpm takes what stands behind the comma in {str(path)!r} for an option of its own",
                "tpm",
                hint="use a name without a comma, and such an XDG_RUNTIME_DIR and XDG_STATE_HOME",
            )
    yield plan
