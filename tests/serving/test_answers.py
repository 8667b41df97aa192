"""The JSON of an answer, read back by Python's own parser."""

from __future__ import annotations

import json
import math
from types import MappingProxyType

import numpy as np

from heatserve.serving.answers import json_bytes


def test_numbers_that_are_not_finite_are_null_wherever_they_stand() -> None:
    found = json_bytes({"a": [1.5, math.nan, (math.inf,)], "b": {"c": -math.inf, "d": np.float64("nan")}, "e": "ä"})
    assert json.loads(found) == {"a": [1.5, None, [None]], "b": {"c": None, "d": None}, "e": "ä"}
    assert found.isascii() and b"NaN" not in found and b"Infinity" not in found


def test_any_mapping_becomes_an_object() -> None:
    assert json.loads(json_bytes(MappingProxyType({"a": MappingProxyType({"b": 1})}))) == {"a": {"b": 1}}
