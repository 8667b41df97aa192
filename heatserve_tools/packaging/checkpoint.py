"""The state dict in a checkpoint: the member that holds it, and its names as the network has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from heatserve_tools.errors import ToolError

#: The usual keys of a state dict in a checkpoint, and of a moving average of it.
KEYS = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "module", "params", "weights")
AVERAGED = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema", "params_ema"),
    *("averaged_model", "swa_state_dict"),
)
#: The first parts of names that training code adds to those of the network.
_ADDED = {"module", "model", "net", "network", "backbone", "encoder", "classifier_model", "student", "teacher", "ema"}
_COMPILED = "_orig_mod."


def is_state(value: Any) -> bool:
    """Whether this is a state dict: tensors by name."""
    import torch

    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(member, torch.Tensor) for name, member in value.items())
    )


def pick(file: str, content: Any, key: str | None, averaged: bool) -> tuple[Mapping[str, Any], list[str]]:
    """The state dict in the content of a file, and remarks on the choice. Raises ToolError.

    key: of the member, as the user named it; dots lead further in, and a last part may be the prefix of names.
    averaged: whether the moving average of the weights is asked for.
    """
    if key is not None:
        return _named(file, content, key), [f"the weights are the member {key} of {file}"]
    if not isinstance(content, Mapping):
        raise ToolError(f"The weights {file} are a {type(content).__name__}, not a state dict.")
    if is_state(content):
        if averaged:
            raise ToolError(f"The weights {file} are one state dict without a moving average: leave --ema out.")
        return content, []
    found = {name: _inside(content[name]) for name in KEYS if name in content}
    averages = {name: _inside(content[name]) for name in AVERAGED if name in content}
    return _chosen(
        file,
        {name: state for name, state in found.items() if state is not None},
        {name: state for name, state in averages.items() if state is not None},
        averaged,
        content,
    )


def _chosen(
    file: str,
    found: Mapping[str, Mapping[str, Any]],
    averages: Mapping[str, Mapping[str, Any]],
    averaged: bool,
    content: Mapping[Any, Any],
) -> tuple[Mapping[str, Any], list[str]]:
    choice = averages if averaged else found
    if len(choice) > 1:
        raise ToolError(f"The weights {file} have several state dicts, {', '.join(choice)}: name one by --weights-key.")
    if not choice and averaged:
        raise ToolError(f"The weights {file} have no moving average that is a state dict: leave --ema out.")
    if not choice and averages:
        raise ToolError(f"The weights {file} have a moving average alone ({', '.join(averages)}): --ema takes it.")
    if not choice:
        _no_state(file, content)
    ((name, state),) = choice.items()
    remarks = [f"the weights are the member {name} of {file}"]
    if averages and not averaged:
        remarks.append(f"{file} has a moving average of the weights too ({', '.join(averages)}): --ema takes it")
    return state, remarks


def _no_state(file: str, content: Mapping[Any, Any]) -> None:
    import torch

    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if not others:
        raise ToolError(f"The weights {file} have no tensors: give a file with the state dict alone.")
    held = [str(name) for name, value in content.items() if _inside(value) is not None]
    way = (
        f"--weights-key {held[0]} takes the state dict {held[0]}"
        if held
        else "give a file with the state dict alone, or name its member by --weights-key"
    )
    raise ToolError(f"The weights {file} have members that are no tensors ({', '.join(others[:5])}): {way}.")


def _inside(value: Any) -> Mapping[str, Any] | None:
    """The state dict that a member is, or that lies one step inside it; None where there is none."""
    if is_state(value):
        return dict(value)
    if isinstance(value, Mapping):
        for name in KEYS:
            if is_state(value.get(name)):
                return dict(value[name])
    return None


def _named(file: str, content: Any, key: str) -> Mapping[str, Any]:
    """The state dict that a key of the user names. Raises ToolError."""
    if isinstance(content, Mapping):
        if key in content:
            inner = _inside(content[key])
            if inner is not None:
                return inner
        elif is_state(content):
            below = {name[len(key) + 1 :]: value for name, value in content.items() if name.startswith(f"{key}.")}
            if below:
                return below
        else:
            first, _, rest = key.partition(".")
            if rest and first in content:
                return _named(file, content[first], rest)
    there = ", ".join(str(name) for name in list(content)[:8]) if isinstance(content, Mapping) else "none"
    raise ToolError(f"The weights {file} have no state dict {key} (--weights-key); the members there are {there}.")


def may_have_prefixes(names: Iterable[str]) -> bool:
    """Whether names may have parts in front that training code added."""
    return any(_COMPILED in name or name.partition(".")[0] in _ADDED for name in names)


def without_prefixes(
    file: str, state: Mapping[str, Any], network: Callable[[], Iterable[str] | None]
) -> tuple[Mapping[str, Any], list[str]]:
    """The state dict with the names of the network, and remarks on the change. Raises ToolError.

    network: gives the names of the network's own state dict, which decide; None where it cannot be built.

    Names stay as they are where no prefix makes them those of the network: the archive's trial says the difference.
    """
    if not may_have_prefixes(state):
        return state, []
    expected = network()
    if expected is None:
        return state, []
    wanted, remarks = _needed(expected), []
    if not any(_COMPILED in name for name in wanted) and any(_COMPILED in name for name in state):
        state = {name.replace(_COMPILED, ""): value for name, value in state.items()}
        remarks.append("the prefix _orig_mod., which torch.compile adds, was taken off")
    if _needed(state) == wanted:
        return state, remarks
    parts = [name.split(".") for name in state]
    prefixes = {".".join(names[:count]) + "." for names in parts for count in range(1, min(len(names), 4))}
    below = {p: {n[len(p) :]: v for n, v in state.items() if n.startswith(p)} for p in sorted(prefixes)}
    fitting = [prefix for prefix in below if _needed(below[prefix]) - {"n_averaged"} == wanted]
    if len(fitting) > 1:
        keys = " or ".join(prefix[:-1] for prefix in fitting)
        raise ToolError(f"The weights {file} fit the network below several names: --weights-key {keys} takes one.")
    if not fitting:
        return state, remarks
    (prefix,) = fitting
    left = [name for name in state if not name.startswith(prefix)]
    remarks.append(f"the prefix {prefix} was taken off {len(below[prefix])} names of the weights")
    if left:
        remarks.append(
            f"{len(left)} tensors of {file} are not of the network and were left out, the first is {left[0]}"
        )
    return below[prefix], remarks


def _needed(names: Iterable[str]) -> set[str]:
    """The names without the counters of batch normalisation, which older state dicts lack."""
    return {name for name in names if not name.endswith("num_batches_tracked")}
