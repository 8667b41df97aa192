"""Free and taken ports of this machine."""

from __future__ import annotations

import contextlib
import errno
import random
import socket

HOST = "127.0.0.1"


def free(count: int) -> list[int]:
    """Some free ports, below those that systems hand out for outgoing connections."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        for port in random.SystemRandom().sample(range(20000, 32000), 1000):
            if len(ports) == count:
                return ports
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind((HOST, port))
                ports.append(port)
    raise RuntimeError("There are no free ports between 20000 and 32000.")


def refusal(port: int) -> str | None:
    """The reason why no server can listen at a port, as the end of a sentence about it; None where one can."""
    with socket.socket() as probe:
        # As Java does: connections that a server left behind do not keep its port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            return "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
    return None
