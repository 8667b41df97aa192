"""Free ports of this machine."""

from __future__ import annotations

import contextlib
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
