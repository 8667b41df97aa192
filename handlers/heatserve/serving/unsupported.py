"""The settings of TorchServe that do not go with heatserve: each is refused with the reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .values import SettingsError, section, whole


def refuse_unsupported(config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
    """Raises SettingsError for a setting of TorchServe's, or of its environment, that heatserve cannot serve with."""
    pt2 = config.get("pt2")
    compiles = pt2.get("compile", pt2) if isinstance(pt2, dict) else pt2
    enabled = compiles.get("enable", True) if isinstance(compiles, dict) and compiles else bool(compiles)
    if enabled or (isinstance(pt2, dict) and "export" in pt2):
        raise SettingsError("pt2 is not supported: a compiled or exported model has no layers to explain; remove it")
    if environment.get("TS_IPEX_ENABLE", "false").lower() == "true":
        raise SettingsError("TS_IPEX_ENABLE=true is not supported: IPEX replaces the layers to explain; unset it")
    for key in ("continuousBatching", "asyncCommunication"):
        # TorchServe takes a text for false, where Python would take it for true.
        if not isinstance(config.get(key), (bool, type(None))):
            raise SettingsError(f"{key} is {config[key]!r}; true or false is allowed")
    if config.get("asyncCommunication"):
        raise SettingsError(
            "asyncCommunication: true is not supported (one worker death takes the model down); remove it"
        )
    if section(config, "handler").get("profile"):
        raise SettingsError(
            "handler.profile: true is not supported: heatserve_stage_seconds times every stage already; remove it"
        )
    if config.get("continuousBatching"):
        _refuse_unsupported_in_continuous_batching(config)


def _refuse_unsupported_in_continuous_batching(config: Mapping[str, Any]) -> None:
    for key in ("minWorkers", "maxWorkers"):
        if key in config and whole(key, config[key]) > 1:
            raise SettingsError(
                f"{key} is {config[key]}; with continuousBatching: true one worker is allowed (two take turns to hold "
                "the queue, and requests stall); for more capacity serve the archive under more names"
            )
    for key in ("sequenceBatching", "sequenceMaxIdleMSec"):
        if config.get(key):
            raise SettingsError(f"{key} is not supported with continuousBatching: true; remove it")
