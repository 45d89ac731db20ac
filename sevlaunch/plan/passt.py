"""A network through passt, a helper program that speaks for the guest as an ordinary process of the host."""

from __future__ import annotations

from collections.abc import Iterator

from sevlaunch.plan.context import Context
from sevlaunch.plan.needs import Companion, Needs
from sevlaunch.plan.network_backends import ForwardingBackend, forwards, ssh_port
from sevlaunch.plan.option import Choice, Option, Parameter, flag, rule, verbatim
from sevlaunch.profile.model import PasstNetwork

_VHOST_USER = "--vhost-user"
_INSTALL = "Debian, Ubuntu, Fedora, openSUSE: the package passt; or use type: user"


class PasstBackend(ForwardingBackend, frozen=True, kw_only=True):
    """passt listens on ``socket``. ``as_root``: it is started so, and stays so.

    ``mtu``: what it tells the guest by DHCP, as the device does. ``host_access``: to the host's own services.
    ``vhost_user``: it maps the guest's memory. ``newer``: it is known to be of 2025 or later, which is about to have no
    --stderr any more, and writes there without it.
    """

    name: str
    socket: str
    mtu: Choice[int] | None
    host_access: Choice[bool]
    vhost_user: Choice[bool]
    newer: bool
    as_root: bool

    @property
    def needs(self) -> Needs:
        """The program, and the namespaces that it shuts itself into: passt's isolation.c, isolate_prefork()."""
        return Needs(
            companions=(Companion(self.name, "passt", tuple(self._command()), self.socket, _INSTALL),),
            namespaces=("user", "ipc", "mnt", "uts", "pid"),
            system_calls=("@mount",),
        )

    def options(self) -> Iterator[Option]:
        """The connection of vhost-user."""
        if self.vhost_user.value:
            why = self.vhost_user.reason
            path = (Parameter("id", self.name, why), Parameter("path", self.socket, why))
            yield Option("-chardev", (Parameter("", "socket", why), *path))

    def parameters(self) -> Iterator[Parameter]:
        """passt's socket."""
        if self.vhost_user.value:
            yield Parameter("chardev", self.name, self.vhost_user.reason)
            return
        yield Parameter("server", "off", rule("passt listens"))
        yield Parameter("addr.type", "unix", rule("passt's socket"))
        yield Parameter("addr.path", self.socket, rule("passt's socket"))

    def _command(self) -> Iterator[Option]:
        yield flag("--foreground", rule("it is watched"))
        if not self.newer:
            # Without it, the passt of Debian 12 goes into the background in spite of --foreground.
            yield flag("--stderr", rule("its output goes into its log"))
        yield flag("--one-off", rule("it ends with the guest"))
        yield flag("--quiet", rule("only what went wrong goes into its log"))
        yield verbatim("--socket", self.socket, rule("QEMU connects to it"))
        if self.as_root:
            # Started by root, it becomes nobody, and in Debian 12 then loses its socket at once. It drops its
            # capabilities and confines itself by seccomp and namespaces all the same.
            yield verbatim("--runas", "0", rule("it keeps its user, and with it access to its socket"))
        if self.vhost_user.value:
            yield flag(_VHOST_USER, self.vhost_user.reason)
        if not self.host_access.value:
            yield flag("--no-map-gw", self.host_access.reason)
        if self.mtu:
            yield verbatim("--mtu", str(self.mtu.value), self.mtu.reason)
        for forward in self.all_forwards:
            one = forward.value
            yield verbatim(f"--{one.protocol}-ports", f"{one.host}/{one.port}:{one.guest_port}", forward.reason)


def passt_backend(context: Context, index: int, network: PasstNetwork) -> PasstBackend:
    """The backend of the ``index``-th network."""
    passt = context.host.helpers.get("passt")
    if network.vhost_user and passt is not None and _VHOST_USER not in passt.options:
        context.lack(
            f"{passt.path} has no {_VHOST_USER}, which networks.{index}.vhost_user asks for",
            hint="install a newer passt (2025), or leave vhost_user out",
        )
    return PasstBackend(
        name=f"passt{index}",
        socket=str(context.qemu_folder / f"passt{index}.sock"),
        ssh=ssh_port(context, index, network),
        forwards=forwards(context, index, network),
        mtu=context.choice_or_none(network.mtu, "networks", index, "mtu"),
        host_access=context.choice(network.host_access, "networks", index, "host_access"),
        vhost_user=context.choice(network.vhost_user, "networks", index, "vhost_user"),
        newer=passt is not None and _VHOST_USER in passt.options,
        as_root=context.host.user == "root" and context.other_user is None,
    )
