"""Checks of bodies against the public OpenAPI description of the Open Inference Protocol, version 2.0.

The description is read from the client that was generated from it (open-inference-openapi 2.0.0.1). That client's own
reader would convert a member of another type instead of refusing it.
"""

from __future__ import annotations

from typing import Any

from jsonschema import Draft7Validator
from open_inference.openapi.types import InferenceErrorResponse, InferenceRequest, InferenceResponse

_REQUEST, _ANSWER, _ERROR = (
    Draft7Validator(part.schema()) for part in (InferenceRequest, InferenceResponse, InferenceErrorResponse)
)


def check_request(body: Any) -> None:
    """Raises jsonschema.ValidationError."""
    _REQUEST.validate(body)


def check_answer(body: Any) -> None:
    """Raises jsonschema.ValidationError."""
    _ANSWER.validate(body)


def check_error(body: Any) -> None:
    """Raises jsonschema.ValidationError, or AssertionError for an empty message."""
    _ERROR.validate(body)
    assert body["error"]
