"""A connection to a port of a guest's vsock, handed to ssh (its ProxyUseFdpass).

Run as a program of its own, with Python's standard library alone, as `ssh` has the system's shell start it::

    python -IS vsock_connection.py CID PORT
"""

import socket
import sys


def hand_over(cid: int, port: int) -> None:
    """Connect, and send the connection through standard output, which is a socket of ssh's.

    :raise OSError: when nobody listens there.
    """
    with socket.socket(socket.AF_VSOCK) as connection, socket.socket(fileno=sys.stdout.fileno()) as ssh:
        connection.connect((cid, port))
        # ssh's monitor_fdpass.c: mm_receive_fd() takes one byte with it.
        socket.send_fds(ssh, [b"\0"], [connection.fileno()])
        # It is standard output's.
        ssh.detach()


if __name__ == "__main__":
    try:
        hand_over(int(sys.argv[1]), int(sys.argv[2]))
    except OSError as error:
        sys.exit(f"no connection to port {sys.argv[2]} of the vsock {sys.argv[1]}: {error.strerror or error}")
