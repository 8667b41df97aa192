"""The end of a worker whose device is lost. It comes after the last answer, so that TorchServe starts another worker.

A worker that stayed would look healthy and answer every request with 500.
"""

from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from typing import Any

#: Seconds in which the last answer has to be sent, where the connection does not end the worker by itself.
GRACE = 5.0


def end_once_answered(context: Any) -> None:
    """Ends this process when the answer that `handle` is about to return has been sent.

    TorchServe's worker sends the answer and reads the next command. The reading side of its connection is shut here, so
    it reads the end of the stream instead. It takes that for a frontend that has gone, and exits. If the exit hangs, as
    in a device's own clean-up, the process is ended without clean-up after `GRACE`.
    """
    last = threading.Timer(GRACE, os._exit, (1,))
    last.daemon = True
    last.start()
    connection = getattr(context, "cl_socket", None)
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RD)
