"""TorchServe's two modes: one `handle` call is a batch from start to end, or one step in continuous batching."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..serving.integrity import ArchiveError
from ..serving.service import Reply, Service
from ..serving.settings import Settings
from .batch import Batch
from .lock import only_worker


def check_mode(settings: Settings, name: str, manifest: Mapping[str, Any], envelope: Any) -> None:
    """Refuses a service envelope, and in continuous batching every worker of a model but the first.

    Raises ArchiveError.

    name: of the model on the server.
    """
    if envelope:
        raise ArchiveError(
            "a service envelope hides all rows of a batch but the first; remove it (service_envelope): the handler "
            "reads raw, form, JSON and KServe bodies by itself"
        )
    if settings.continuous:
        only_worker(name, str(manifest.get("model", {}).get("modelVersion", "")))


def reply_to(service: Service, batch: Batch) -> Reply:
    """The reply to a batch. Never raises.

    In continuous batching it is that of one call, and the rows that are left come again. In the ordinary mode the call
    is repeated until all rows are answered, and lines of streams are sent in between. A fault of sending refuses the
    rows that still wait, and no others.
    """
    reply = whole = service.call(batch.rows)
    while reply.left and not service.settings.continuous:
        waiting = whole.unanswered(batch.rows)
        try:
            batch.send(reply.lines)
        except Exception as error:
            return whole.then(service.fail(waiting, error))
        reply = service.call(waiting)
        whole = whole.then(reply)
    return whole
