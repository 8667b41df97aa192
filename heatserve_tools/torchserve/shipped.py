"""The two configuration files of a heatserve server, which lie beside this module."""

from __future__ import annotations

from pathlib import Path

SERVER_CONFIG = Path(__file__).with_name("config.properties")
METRICS = Path(__file__).with_name("metrics.yaml")
