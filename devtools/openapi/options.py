"""The options of a request, as schemas and as headers."""

from __future__ import annotations

from typing import Any

from heatserve.serving.options import OPTIONS, Option

Schema = dict[str, Any]


def ref(name: str, kind: str = "schemas") -> Schema:
    """A component of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


def options() -> Schema:
    """All options as members of an object."""
    return {name: schema(option) for name, option in OPTIONS.items()}


def schema(option: Option) -> Schema:
    """The schema of an option's JSON value. The handler takes the value's text too."""
    found = {"description": f"{option.summary} ({option.allowed})", **_type(option)}
    return found if option.default is None else {**found, "default": option.default}


def _type(option: Option) -> Schema:
    if option.kind in ("choice", "layer"):
        return {"type": "string", **({"enum": [*option.choices]} if option.choices else {})}
    if option.kind == "boolean":
        return {"type": "boolean"}
    if option.kind in ("contrast", "target"):
        return {"type": ["integer", "string"], "minimum": 0}
    if option.kind == "integer":
        return {"type": "integer", "minimum": int(option.low), "maximum": int(option.high)}
    return {"type": "number", "minimum": option.low, "maximum": option.high}


def header(option: Option) -> str:
    """The name of the header that carries an option."""
    return "X-Explain-" + "-".join(word.capitalize() for word in option.name.split("_"))


def headers() -> Schema:
    """Each option as a component of kind `parameters`."""
    return {
        header(option): {"name": header(option), "in": "header", "required": False, "schema": schema(option)}
        for option in OPTIONS.values()
    }
