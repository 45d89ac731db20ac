"""A network through passt, a helper program that speaks for the guest as an ordinary process of the host."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Companion, Needs
from sevlaunch.plan.network_backends import LOOPBACK, Backend
from sevlaunch.plan.option import Choice, Option, Parameter, flag, rule, verbatim
from sevlaunch.profile.fields import split_forward
from sevlaunch.profile.model import PasstNetwork

_INSTALL = "Debian, Ubuntu, Fedora, openSUSE: the package passt; or use type: user"


class PasstBackend(Backend, frozen=True, kw_only=True):
    """passt listens on ``socket``. ``forwards`` are as in the profile; ``as_root``: it is started so, and stays so.

    ``mtu``: what it tells the guest by DHCP, as the device does.
    """

    name: str
    socket: str
    forwards: tuple[Choice[str], ...]
    mtu: Choice[int] | None
    as_root: bool

    @property
    def needs(self) -> Needs:
        """The program, and the namespaces that it shuts itself into: passt's isolation.c, isolate_prefork()."""
        return Needs(
            companions=(Companion(self.name, "passt", tuple(self._command()), self.socket, _INSTALL),),
            namespaces=("user", "ipc", "mnt", "uts", "pid"),
            system_calls=("@mount",),
        )

    def parameters(self) -> Iterator[Parameter]:
        """passt's socket."""
        yield Parameter("server", "off", rule("passt listens"))
        yield Parameter("addr.type", "unix", rule("passt's socket"))
        yield Parameter("addr.path", self.socket, rule("passt's socket"))

    def _command(self) -> Iterator[Option]:
        # Without --stderr, the passt of Debian 12 goes into the background in spite of --foreground.
        for name in ("--foreground", "--stderr"):
            yield flag(name, rule("it is watched, and its output goes into its log"))
        yield flag("--one-off", rule("it ends with the guest"))
        yield flag("--quiet", rule("only what went wrong goes into its log"))
        yield verbatim("--socket", self.socket, rule("QEMU connects to it"))
        if self.as_root:
            # Started by root, it becomes nobody, and in Debian 12 then loses its socket at once. It drops its
            # capabilities and confines itself by seccomp and namespaces all the same.
            yield verbatim("--runas", "0", rule("it keeps its user, and with it access to its socket"))
        if self.mtu:
            yield verbatim("--mtu", str(self.mtu.value), self.mtu.reason)
        for forward in self.forwards:
            protocol, address, host_port, guest_port = split_forward(forward.value)
            yield verbatim(f"--{protocol}-ports", f"{address or LOOPBACK}/{host_port}:{guest_port}", forward.reason)


def passt_backend(context: Context, index: int, network: PasstNetwork) -> PasstBackend:
    """The backend of the ``index``-th network."""
    return PasstBackend(
        name=f"passt{index}",
        socket=str(context.qemu_folder / f"passt{index}.sock"),
        forwards=tuple(
            context.choice(forward, "networks", index, "forward", position)
            for position, forward in enumerate(network.forward)
        ),
        mtu=context.choice_or_none(network.mtu, "networks", index, "mtu"),
        as_root=context.host.user == "root" and context.other_user is None,
    )
