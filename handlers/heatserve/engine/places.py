"""The proof of each place by itself: blocks of the picture are changed at random; each place must answer to its own.

This tells tokens in the picture's order from tokens in another one, and (N, h, w, K) from any other reading, of which
corners show too little. Attention lets every place answer to every block. That part is common to all places and is
taken off; what a residual stream carries stays at its own place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from .layout import Layout
from .taps import activations

#: The numbers of copies whose blocks, each as large as a place, are changed at random: at first, and at last for the
#: likeliest layout, as attention that was trained answers to few blocks and to all of their changes differently.
_COPIES, _MORE = 16, 48
#: Places that see far answer to their neighbours' blocks too. For them a side has so many larger blocks, changed one by
#: one.
_SIDE = 4
#: The share of the picture's blocks that one changed picture changes.
_CHANGED = 0.25
#: The share of places that must answer most to their own block.
_SHARE = 0.6
#: The lead in correlation of another block over a place's own, above which the place is clearly another one.
_ELSEWHERE = 0.6
#: Answers below this share of the mean answer count as none.
_SILENT = 1e-3
#: The number of grids that are tried for one layer, those of the squarest blocks first.
_GRIDS = 3
#: The longest side of a block, in its shortest.
_OBLONG = 4.0


def show_places(model: nn.Module, example: Tensor, shapes: Mapping[str, Sequence[int]]) -> dict[str, Layout]:
    """The layouts of those layers whose every place answers to its own block of the picture.

    example: (N, C, H, W); the first one is changed.
    shapes: the shape of each layer's activation of one picture, (1, ...), by the layer's name.
    """
    picture = example[0]
    tokens = {int(shape[1]) for shape in shapes.values() if len(shape) == 3}
    prefixes = prefixes_of(model, picture, tokens)
    waiting = {layer: list(_readings(shape, picture, prefixes))[:_GRIDS] for layer, shape in shapes.items()}
    likeliest = {layouts[0] for layouts in waiting.values() if layouts}
    found: dict[str, Layout] = {}
    while any(waiting.values()):
        grid = next(_grid(layouts[0], shapes[layer]) for layer, layouts in waiting.items() if layouts)
        tried = {
            layer: layouts.pop(0)
            for layer, layouts in waiting.items()
            if layouts and _grid(layouts[0], shapes[layer]) == grid
        }
        shown = _shown(model, picture, grid, tried, not likeliest.isdisjoint(tried.values()))
        found.update(shown)
        waiting = {layer: layouts for layer, layouts in waiting.items() if layer not in shown}
    return found


def _shown(
    model: nn.Module, picture: Tensor, grid: tuple[int, int], tried: Mapping[str, Layout], likeliest: bool
) -> dict[str, Layout]:
    """Those of the layouts, all of one grid, that changed blocks show to be right."""
    found: dict[str, Layout] = {}
    tries = [_at_random(_COPIES, grid), _one_by_one(grid)] + [_at_random(_MORE, grid)] * likeliest
    for cells in tries:
        layers = [layer for layer in tried if layer not in found]
        if not layers:
            break
        _, planted = activations(model, _planted(picture, cells), layers)
        for layer in layers:
            if len(planted[layer]) == 1 + len(cells) and places_answer(tried[layer].maps(planted[layer]), cells):
                found[layer] = tried[layer]
    return found


def places_answer(maps: Tensor, cells: Tensor) -> bool:
    """Whether each place answers to its own block more than to any other.

    maps: (1 + P, K, h, w), of a picture and its P changed copies.
    cells: (P, rows, columns), whether each copy has that block changed; a block has one place or more.
    """
    changes = (maps[1:] - maps[:1]).double().flatten(2)
    if changes.shape[2] == 1:  # a single place is the whole picture
        return bool(changes.any())
    # The median is that of unchanged places: their answer is the part that is common to all.
    local = (changes - changes.median(2, keepdim=True).values).norm(dim=1)
    if not bool(local.isfinite().all()) or float(local.max()) == 0:
        return False
    answers = _contrasts((local + _SILENT * local.mean() + torch.finfo(local.dtype).tiny).log())
    blocks = _contrasts(cells.to(local).flatten(1))
    matches = answers.T @ blocks  # correlations over the copies, (places, blocks)
    (height, width), (rows, columns) = maps.shape[2:], cells.shape[1:]
    down = (2 * torch.arange(height) + 1) * rows // (2 * height)
    across = (2 * torch.arange(width) + 1) * columns // (2 * width)
    block = (down[:, None] * columns + across).flatten().to(matches.device)
    own, best = matches.gather(1, block[:, None])[:, 0], matches.amax(1)
    return float((own >= best).double().mean()) >= _SHARE and float((best - own).max()) <= _ELSEWHERE


def _contrasts(values: Tensor) -> Tensor:
    """The values (P, places) without the mean of each copy and of each place, of length 1 for each place."""
    if values.shape[1] > 1:
        values = values - values.mean(1, keepdim=True)
    values = values - values.mean(0, keepdim=True)
    return nn.functional.normalize(values, dim=0)


def prefixes_of(model: nn.Module, picture: Tensor, tokens: set[int]) -> dict[int, int]:
    """By the number of tokens, how many of the first ones do not depend on the picture where patches are embedded.

    That is the first module whose output (N, tokens, K) depends on the picture. A number is missing where no module
    gives so many tokens, and where others than the first ones do not depend on the picture.
    """
    found: dict[int, int] = {}
    seen: set[int] = set()

    def hook(_module: nn.Module, _inputs: object, output: object) -> None:
        if not isinstance(output, Tensor) or output.ndim != 3 or len(output) != 2 or output.shape[1] not in tokens:
            return
        count = int(output.shape[1])
        answers = (output[0] != output[1]).any(1)
        if count in seen or not bool(answers.any()):
            return
        seen.add(count)
        prefix = int(answers.long().argmax())
        if bool(answers[prefix:].all()):
            found[count] = prefix

    if not tokens:
        return {}
    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        with torch.no_grad():
            model(_planted(picture, torch.ones((1, 1, 1), dtype=torch.bool)))
    finally:
        for handle in handles:
            handle.remove()
    return found


def _readings(shape: Sequence[int], picture: Tensor, prefixes: Mapping[int, int]) -> Iterator[Layout]:
    """The layouts that an activation's shape allows, those of the squarest blocks first."""
    readings = []
    if len(shape) == 4:
        readings = [Layout("nchw"), Layout("nhwc")]
    elif len(shape) == 3 and shape[1] in prefixes:
        places = shape[1] - prefixes[shape[1]]
        grids = [(rows, places // rows) for rows in range(1, places + 1) if places % rows == 0]
        readings = [Layout("tokens", prefixes[shape[1]], grid) for grid in grids]
    sizes = {}
    for layout in readings:
        rows, columns = _grid(layout, shape)
        height, width = picture.shape[1] / rows, picture.shape[2] / columns
        if min(height, width) >= 1 and max(height, width) <= _OBLONG * min(height, width):
            sizes[layout] = max(height, width) / min(height, width)
    return iter(sorted(sizes, key=lambda layout: sizes[layout]))


def _grid(layout: Layout, shape: Sequence[int]) -> tuple[int, int]:
    if layout.grid is not None:
        return layout.grid
    return (shape[2], shape[3]) if layout.kind == "nchw" else (shape[1], shape[2])


def _at_random(copies: int, grid: tuple[int, int]) -> Tensor:
    """Which blocks each copy changes, (P, h, w): a block for each place, each in one copy at least."""
    cells = torch.rand((copies, *grid), generator=torch.Generator().manual_seed(1)) < _CHANGED
    cells[-1] |= ~cells.any(0)
    return cells


def _one_by_one(grid: tuple[int, int]) -> Tensor:
    """One larger block for each copy, (P, rows, columns)."""
    rows, columns = min(grid[0], _SIDE), min(grid[1], _SIDE)
    return torch.eye(rows * columns, dtype=torch.bool).view(-1, rows, columns)


def _planted(picture: Tensor, cells: Tensor) -> Tensor:
    """The picture, and a copy for each of the `cells` with other numbers in those blocks, (1 + P, C, H, W)."""
    (height, width), (rows, columns) = picture.shape[1:], cells.shape[1:]
    down = torch.arange(height) * rows // height
    across = torch.arange(width) * columns // width
    changed = cells[:, down][:, :, across].to(picture.device)
    noise = torch.rand((len(cells), *picture.shape), generator=torch.Generator().manual_seed(0)).to(picture)
    low = picture.amin()
    spread = picture.amax() - low
    noise = low + (spread if float(spread) > 0 else 1) * (3 * noise - 1)
    return torch.cat([picture[None], torch.where(changed[:, None], noise, picture)])
