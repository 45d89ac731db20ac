"""A running QEMU: process, QMP, console, and the registry. The only place with processes, sockets and time."""
