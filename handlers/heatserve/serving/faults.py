"""Faults of the work on rows: each becomes the refusal of its item, a line in the log, or the loss of the device."""

from __future__ import annotations

import logging
import threading

from ..engine import is_device_lost, is_out_of_memory
from .errors import Refusal, printable, refusal_of, where

logger = logging.getLogger(__name__)


class Faults:
    """The faults of one worker. They may come from several threads.

    lost: the refusal of every row once the device is lost; None while it is there.
    """

    def __init__(self) -> None:
        self.lost: Refusal | None = None
        self._first = threading.Lock()

    def record(self, error: BaseException) -> Refusal:
        """Logs a fault of the server. Gives the refusal of the item that the exception belongs to."""
        refusal = self.refusal(error)
        if refusal.code >= 500 and not isinstance(error, Refusal) and not is_out_of_memory(error):
            logger.error("request failed: %s", where(error))
        return refusal

    def refusal(self, error: BaseException) -> Refusal:
        """The refusal that a client gets for an exception. An exception that says so sets `lost`."""
        refusal = refusal_of(error)
        if is_device_lost(error):
            with self._first:
                if self.lost is None:
                    logger.error("heatserve: the device is lost: %s", printable(str(error).partition("\n")[0], 120))
                self.lost = refusal
        return refusal
