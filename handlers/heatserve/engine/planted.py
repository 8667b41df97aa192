"""The proof of a layout: which axes of an activation are places. Changed pictures show it; sizes would be a guess.

An activation (N, h, w, K) that is taken for (N, K, h, w) gives a picture that looks like a map and is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from typing import NoReturn

import torch
from torch import Tensor, nn

from .errors import UnsuitableModel
from .layout import Layout
from .places import show_places
from .taps import activations

#: The axes of rows and of columns of an activation (N, K, h, w).
PLACES = (2, 3)
_AXES = (1, 2, 3)
#: The factor by which the answer must move further along an axis of places than along any other.
_CLEARLY = 2.0
#: The smallest move along an axis of places.
_LEAST = 0.01
#: In maps of at most _FEW places each place may answer to every corner alike. Then no average of two moves is larger
#: than _STILL.
_FEW, _STILL = 16, 0.05
#: Places answer alike where their answers spread no more than this around their mean. Scattered pixels spread by half.
_ALIKE = 0.2
#: The corners that are changed, in the order of `_planted`.
_CORNERS = ("top left", "top right", "bottom left", "bottom right")
_PICTURES = 1 + len(_CORNERS)

Axes = tuple[int, int]


def prove_layouts(
    model: nn.Module, example: Tensor, layers: Sequence[str], named: bool, declared: str | None = None
) -> dict[str, Layout]:
    """The layouts of layers by their names. Raises UnsuitableModel for a layer of which none can be shown.

    example: (N, C, H, W).
    layers: the names of the tapped layers.
    named: whether a user chose the layers. One that was found, by a convolution or by the mean over (N, K, h, w), need
        not be shown where its places are few, or all answer alike: each one sees the whole picture. It is not proved.
    declared: a layout that an operator declares for all of them; it is refused where the shape is another one.
    """
    if not layers:
        return {}
    _, planted = activations(model, _planted(example[0]), layers)
    if declared is not None:
        return {layer: _declared(Layout.parse(declared), layer, planted[layer]) for layer in layers}
    places = {layer: _places_of(model, example, layer, values) for layer, values in planted.items()}
    alike = {layer for layer, values in planted.items() if not named and _answers_alike(values)}
    found = _found(model, example, {layer: planted[layer] for layer in layers if layer not in alike}, places, True)
    for layer in layers:
        few = not named and planted[layer].ndim == 4 and planted[layer].shape[2:].numel() <= _FEW
        if layer not in found and (places[layer] is not None or not (few or layer in alike)):
            _refuse(layer, planted[layer], places[layer])
    return {layer: found.get(layer, Layout("nchw", proved=False)) for layer in layers}


def _answers_alike(activation: Tensor) -> bool:
    """Whether all places of (N, K, h, w) answer to each corner alike: each one sees the whole picture."""
    if activation.ndim != 4 or _may_be_places(activation):
        return False
    answers = _changes(activation).norm(dim=1).flatten(1)
    return bool((answers.std(1) <= _ALIKE * answers.mean(1)).all())


def shown_layouts(model: nn.Module, example: Tensor, layers: Sequence[str], thorough: bool) -> dict[str, Layout]:
    """The layouts of those layers that changed pictures show one of, by the layer's name.

    example: (N, C, H, W).
    thorough: whether many pictures are worth an answer.
    """
    _, planted = activations(model, _planted(example[0]), layers)
    planted = {layer: values for layer, values in planted.items() if len(values) == _PICTURES}
    places = {layer: _places_of(model, example, layer, values) for layer, values in planted.items()}
    return _found(model, example, planted, places, thorough)


def reason_against(model: nn.Module, example: Tensor, layer: str) -> str:
    """The sentence with which a layer is refused of which changed pictures show no layout."""
    _, planted = activations(model, _planted(example[0]), [layer])
    try:
        _refuse(layer, planted[layer], _places_of(model, example, layer, planted[layer]))
    except UnsuitableModel as error:
        return str(error)


def _found(
    model: nn.Module,
    example: Tensor,
    planted: Mapping[str, Tensor],
    places: Mapping[str, Axes | None],
    thorough: bool,
) -> dict[str, Layout]:
    """The layouts that corners show, and those that blocks show of the other layers."""
    found = {layer: Layout("nchw") for layer in planted if places[layer] == PLACES or _one_place(planted[layer])}
    unknown = {layer: (1, *planted[layer].shape[1:]) for layer in planted if layer not in found}
    found.update(show_places(model, example, unknown, thorough))
    return found


def _declared(layout: Layout, layer: str, activation: Tensor) -> Layout:
    try:
        layout.maps(activation)
    except ValueError as error:
        raise UnsuitableModel(f"layer {layer!r}: the declared layout does not fit: {error}") from None
    if len(activation) != _PICTURES:
        _refuse(layer, activation, None)
    return layout


def _places_of(model: nn.Module, example: Tensor, layer: str, activation: Tensor) -> Axes | None:
    """The axes of an activation's rows and columns, (1 + corners, ...); None where that is not clear."""
    if len(activation) != _PICTURES:
        _refuse(layer, activation, None)
    if activation.ndim != 4:
        return None
    places = axes_of_places(activation) or _axes_that_grow(model, example, layer)
    return None if places == PLACES and not _may_be_places(activation) else places


def _refuse(layer: str, activation: Tensor, places: Axes | None) -> NoReturn:
    shape = tuple(activation.shape[1:])
    if len(activation) != _PICTURES or activation.ndim not in (3, 4):
        raise UnsuitableModel(
            f"layer {layer!r}: its activation has shape {tuple(activation.shape)} for {_PICTURES} pictures, but maps "
            "need (N, K, h, w), (N, h, w, K) or (N, tokens, K) with N pictures; name a layer that keeps them apart"
        )
    if places is not None:
        rows, columns = (axis - 1 for axis in places)
        raise UnsuitableModel(
            f"layer {layer!r}: its activation {shape} has the picture's rows along axis {rows} and columns along "
            f"axis {columns}, but maps need (K, h, w) or (h, w, K); name a layer behind the permutation, or another one"
        )
    wanted = "(K, h, w)" if activation.ndim == 4 else "(tokens, K) row by row"
    raise UnsuitableModel(
        f"layer {layer!r}: its activation {shape} is not shown to be {wanted}, as a change in one part of the picture "
        "does not stay in that part of it; name another layer, or declare the `layout`"
    )


def axes_of_places(activation: Tensor) -> Axes | None:
    """The axes along which the rows and the columns of the changed corners lie; None where that is not clear.

    activation: (5, a, b, c), of the five pictures of `_planted`.
    """
    changes = _changes(activation)
    places = _axes_that_move(changes)
    if places is not None:
        return places
    # Attention, and squeeze and excitation, also change all places of a channel alike. That part is subtracted.
    local = (changes - changes.mean(axes, keepdim=True) for axes in combinations(_AXES, 2))
    found = {_axes_that_move(change) for change in local} - {None}
    return found.pop() if len(found) == 1 else None


def _may_be_places(activation: Tensor) -> bool:
    """Whether the changes of an activation, (5, K, h, w), agree with `PLACES`.

    On average they must move along those axes rather than along others, or stay still in a small map. Tokens in another
    order than the picture's do neither.
    """
    longer = [axis for axis in _AXES if activation.shape[axis] > 1]
    moves = {axis: [float(pair.mean()) for pair in _moves(_changes(activation).abs(), axis)] for axis in longer}
    own = [moves[axis][way] for way, axis in enumerate(PLACES) if axis in longer]
    others = [moves[axis][way] for axis in longer for way in (0, 1) if axis != PLACES[way]]
    against = max([0.0, *(abs(move) for move in others), *(-move for move in own)])
    if own and min(own) > max(against, _STILL):
        return True
    return activation.shape[2:].numel() <= _FEW and against <= _STILL


def _changes(activation: Tensor) -> Tensor:
    return (activation[1:] - activation[:1]).double()


def _planted(picture: Tensor) -> Tensor:
    """The picture, and four copies of it with other numbers in one corner each, (5, C, H, W)."""
    height, width = (max(1, side // 4) for side in picture.shape[1:])
    low, high = picture.amin(), picture.amax()
    generator = torch.Generator().manual_seed(0)
    changed = [picture]
    for corner in _CORNERS:
        rows = slice(0, height) if "top" in corner else slice(-height, None)
        columns = slice(0, width) if "left" in corner else slice(-width, None)
        noise = torch.rand((len(picture), height, width), generator=generator).to(picture)
        changed.append(picture.clone())
        changed[-1][:, rows, columns] = low + (high - low) * (3 * noise - 1)
    return torch.stack(changed)


def _axes_that_move(changes: Tensor) -> Axes | None:
    """The axes along which the centres of the changes move with the corners' rows and columns; None if unclear."""
    moves = {axis: _moves(changes.abs(), axis) for axis in _AXES}
    for rows, columns in permutations(_AXES, 2):
        matching = torch.cat([moves[rows][0], moves[columns][1]])
        others = [moves[axis][way] for axis in _AXES for way in (0, 1) if (axis, way) not in ((rows, 0), (columns, 1))]
        if float(matching.min()) > max(_LEAST, _CLEARLY * float(torch.cat(others).abs().max())):
            return rows, columns
    return None


def _moves(answers: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The moves of the answer's centre along an axis: two from top to bottom corners, and two from left to right ones.

    A move of 1 is the whole axis. It is NaN where a corner changes nothing.
    """
    profiles = answers.sum([other for other in _AXES if other != axis])
    places = (torch.arange(answers.shape[axis], device=answers.device).double() + 0.5) / answers.shape[axis]
    top_left, top_right, bottom_left, bottom_right = (profiles @ places) / profiles.sum(1)
    rows = torch.stack([bottom_left - top_left, bottom_right - top_right])
    columns = torch.stack([top_right - top_left, bottom_right - bottom_left])
    return rows, columns


def _axes_that_grow(model: nn.Module, example: Tensor, layer: str) -> Axes | None:
    """The axis that is longer for a picture twice as high, and the axis that is longer for one twice as wide.

    This serves maps so small that every place answers to every corner. None where the network takes one size only, or
    where another number of axes grows.
    """
    found = []
    for taller in ((2, 1), (1, 2)):
        try:
            sizes = [
                activations(model, picture, [layer])[1][layer].shape
                for picture in (example[:1], example[:1].repeat(1, 1, *taller))
            ]
        except Exception:  # a network of one size may raise any error
            return None
        found.append([axis for axis in _AXES if sizes[1][axis] > sizes[0][axis]])
    if [len(axes) for axes in found] != [1, 1]:
        return None
    return found[0][0], found[1][0]


def _one_place(activation: Tensor) -> bool:
    return activation.ndim == 4 and activation.shape[2] == activation.shape[3] == 1
