"""QEMU options as data: an option has parameters, and each parameter knows why it has its value."""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from msgspec import Struct

T_co = TypeVar("T_co", covariant=True)


class Reason(Struct, frozen=True):
    """Why a choice was made: a line of the profile, a fact of the host, or a rule."""

    kind: Literal["profile", "host", "rule"]
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"


class Parameter(Struct, frozen=True):
    """``key=value`` in a QEMU option; without a key the option's first, nameless parameter."""

    key: str
    value: str
    reason: Reason

    def __str__(self) -> str:
        # QEMU's util/keyval.c and util/qemu-option.c: a comma in a value is written twice; nothing else is special.
        value = self.value.replace(",", ",,")
        return f"{self.key}={value}" if self.key else value


class Choice(Struct, Generic[T_co], frozen=True):
    """A value of a plan with its reason."""

    value: T_co
    reason: Reason

    def parameter(self, key: str) -> Parameter:
        """The value as QEMU's ``key``: a switch is on or off, all else its text."""
        value = self.value
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        return Parameter(key, text, self.reason)


class Option(Struct, frozen=True):
    """One option of the command line: ``-device`` with its parameters, say, or ``-nodefaults`` without any.

    ``verbatim`` options, such as ``-append``, take their one value as it is, commas included.
    """

    name: str
    parameters: tuple[Parameter, ...] = ()
    reason: Reason | None = None
    verbatim: bool = False

    @property
    def argv(self) -> tuple[str, ...]:
        """The option as arguments for QEMU."""
        if not self.parameters:
            return (self.name,)
        if self.verbatim:
            return (self.name, self.parameters[0].value)
        return (self.name, ",".join(str(parameter) for parameter in self.parameters))


def rule(text: str) -> Reason:
    """A reason that lies in how QEMU or SEV works."""
    return Reason("rule", text)


def fact(text: str) -> Reason:
    """A reason that lies in the host."""
    return Reason("host", text)


def flag(name: str, reason: Reason) -> Option:
    """An option without a value."""
    return Option(name, (), reason)


def verbatim(name: str, value: str, reason: Reason) -> Option:
    """An option whose value QEMU takes as it is."""
    return Option(name, (Parameter("", value, reason),), reason, verbatim=True)
