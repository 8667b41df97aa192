"""The end of a worker whose device is lost: after its last answer has been sent, so that TorchServe starts another.

A worker that stayed would look healthy and answer every request with 500.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any

#: Seconds that the last answer has to be sent in, where the connection cannot say that it was.
GRACE = 5.0


def end_once_answered(context: Any) -> None:
    """Ends this process when the answer that `handle` is about to return has been sent.

    TorchServe's worker sends it and reads the next command. With the reading side of its connection shut it reads the
    end of the stream instead, which it takes for a frontend that has gone, and exits. Should that not happen, as in a
    device's own clean-up, the process is ended without clean-up after `GRACE`.
    """
    last = threading.Timer(GRACE, os._exit, (1,))
    last.daemon = True
    last.start()
    connection = getattr(context, "cl_socket", None)
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
