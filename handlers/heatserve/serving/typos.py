"""Settings with nearly the name of one of heatserve's: typing errors that would be ignored without a word."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from .errors import printable
from .values import SettingsError

logger = logging.getLogger(__name__)

#: The blocks that the handler reads, and the keys of TorchServe's.
SECTIONS = ("explain", "preprocess")
SERVER_KEYS = (
    "minWorkers", "maxWorkers", "batchSize", "maxBatchDelay", "responseTimeout", "startupTimeout", "deviceType",
    "deviceIds", "parallelType", "parallelLevel", "continuousBatching", "asyncCommunication", "sequenceBatching",
    "sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize", "jobQueueSize",
    "useJobTicket", "useVenv", "maxRetryTimeoutInSec", "clientTimeoutInMills", "torchrun", "pt2", "handler",
    "micro_batching",
)  # fmt: skip
#: Beginnings of keys that no program reads: in YAML they hold values that other keys repeat (`x-explain: &shared`).
_PRIVATE = ("x-", ".", "_")
#: Blocks of other programs that may lie beside those of heatserve.
_OTHER_BLOCKS = ("explainer",)
_LIMIT = "HEATSERVE_MAX_"
#: Variables that are no limits: one of the client, which may be set in the same environment, and one of the worker.
OTHER_VARIABLES = ("HEATSERVE_TOKEN", "HEATSERVE_PICTURE_THREADS")
#: Variables that Kubernetes sets in every container for a Service called heatserve, or heatserve-something.
_KUBERNETES = re.compile(
    r"HEATSERVE(_\w+)?_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
#: The likeness of two names from which on one may be meant for the other. Variables share their long beginning.
_NEAR, _NEAR_VARIABLE = 0.77, 0.88


def refuse(config: Mapping[str, Any], environment: Iterable[str], limits: Collection[str]) -> None:
    """Refuses a block or a limit that would be ignored, and warns in the log of every other name that is nearly known.

    Without the block predictions would be silently wrong, without the limit the server would be unprotected. Raises
    SettingsError.

    limits: the environment variables that are limits.
    """
    for key in config:
        block, dot, name = str(key).partition(".")
        if dot and block in SECTIONS:
            value = printable(str(config[key]), 40)
            raise SettingsError(f"{printable(str(key))} is not a setting; write it as `{block}: {{{name}: {value}}}`")
    for key, meant in keys(config):
        if meant in SECTIONS and key not in _OTHER_BLOCKS:
            raise SettingsError(f"{printable(key)} is not a setting; do you mean {meant}?")
        logger.warning("heatserve: the setting %s is ignored; do you mean %s?", printable(key), meant)
    for name, meant_variable in variables(environment, limits):
        if name.startswith(_LIMIT):
            raise SettingsError(
                f"the environment variable {printable(name)} is no limit; do you mean {meant_variable}? "
                f"Allowed: {', '.join(limits)}"
            )
        logger.warning(
            "heatserve: the environment variable %s is ignored; do you mean %s?", printable(name), meant_variable
        )


def nearest(name: str, known: Iterable[str], near: float) -> str | None:
    """The known name that this one was probably meant to be. Letter case does not count."""
    folded = {other.lower(): other for other in known}
    found = get_close_matches(name.lower(), folded, 1, near)
    return folded[found[0]] if found else None


def keys(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Top-level keys that no program reads, each with the known key that was probably meant; private ones are left."""
    known = (*SECTIONS, *SERVER_KEYS)
    for key in config:
        if not isinstance(key, str) or key in known or key.startswith(_PRIVATE):
            continue
        meant = nearest(key, known, _NEAR)
        if meant:
            yield key, meant


def variables(environment: Iterable[str], limits: Collection[str]) -> Iterator[tuple[str, str | None]]:
    """Environment variables that heatserve does not read, each with the known variable that was probably meant.

    One that begins with HEATSERVE_MAX_ is always meant for a limit, and then the second may be None.
    """
    known = (*limits, *OTHER_VARIABLES)
    for name in sorted(environment):
        if name in known or not name.upper().startswith("HEAT") or _KUBERNETES.fullmatch(name):
            continue
        meant = nearest(name, known, _NEAR_VARIABLE)
        if meant or name.startswith(_LIMIT):
            yield name, meant or nearest(name, limits, 0)
