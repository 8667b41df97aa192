"""The transformer in a network, as one traced forward pass and some changed pictures show it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attention import Attentions, Unmixed
from .blocks import Blocks, first_argument, tokens_of
from .errors import UnsuitableModel, is_out_of_memory
from .kinds import open_modules, watchable
from .layout import Layout
from .structure import same

#: The most tokens before the places' tokens that are looked for: class, distillation and register tokens.
_MOST_PREFIX = 32
#: The smallest gradient of a row of the last attention, as a share of the largest, of a token that is read.
_READ = 1e-6


@dataclass(frozen=True)
class Transformer:
    """The blocks of a transformer and the places of its tokens.

    count: the number of blocks.
    prefix: the number of tokens before the places' tokens.
    grid: (h, w) of the places' tokens, row by row.
    readers: the tokens of the last block that the scores are made of: the class token, or all that are pooled.
    blocks: the blocks as modules.
    """

    count: int
    prefix: int
    grid: tuple[int, int]
    readers: tuple[int, ...]
    blocks: Blocks


def transformer_or_reason(model: nn.Module, example: Tensor, layouts: Iterable[Layout]) -> Transformer | str:
    """The transformer in a model, or the sentence that says why its attention explains nothing.

    example: (N, C, H, W).
    layouts: of the tapped layers; those of tokens must have the places that the attention has.
    """
    if not watchable(model):
        return "the functions of a compiled or scripted network cannot be seen; its attention needs the eager network"
    try:
        found = find_transformer(model, example)
    except UnsuitableModel as error:
        return str(error)
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        if is_out_of_memory(error):
            raise
        return f"recording its attention fails ({type(error).__name__}: {error})"
    for layout in layouts:
        if layout.kind == "tokens" and (layout.prefix, layout.grid) != (found.prefix, found.grid):
            return (
                f"its attention has {found.prefix} tokens before a grid {found.grid}, and the layout of a layer is "
                f"{layout}"
            )
    return found


@dataclass(frozen=True)
class _Call:
    """The run of a module with attention in it.

    first, last: the softmaxes in it have the numbers from `first` to `last - 1`.
    """

    module: nn.Module
    first: int
    last: int
    tokens: Any
    output: Any


def find_transformer(model: nn.Module, example: Tensor) -> Transformer:
    """The transformer in a model. example: (N, C, H, W).

    Raises UnsuitableModel, with the reason, for a network whose attention cannot be recorded or placed.
    """
    if not _watch(model, example[:1])[0].matrices:  # most networks have none, and one image is cheap
        raise UnsuitableModel("the network has no attention that was seen in its trace")
    attentions, calls = _watch(model, example)
    shapes = list(dict.fromkeys(tuple(matrix.shape) for matrix in attentions.matrices))
    rows, _, tokens, keys = shapes[0]
    if len(shapes) > 1 or rows != len(example) or tokens != keys:
        few = ", ".join(str(shape) for shape in shapes[:3])
        raise UnsuitableModel(
            f"the attention of its blocks is not between the same tokens of the picture everywhere (shapes {few})"
        )
    prefix, grid = _places(model, example[:1], tokens)
    with torch.no_grad():
        plain: Tensor = model(example.clone())
    readers = _readers(model, example, plain)
    blocks = _blocks(model, example, attentions, calls, plain)
    if blocks is None:
        raise UnsuitableModel(
            "its attention does not sit in a chain of modules, each on the tokens that the one before gives"
        )
    if _mixes_elsewhere(model, blocks, example[:1], grid):
        raise UnsuitableModel("its blocks also mix tokens in another way than by the attention that was seen")
    return Transformer(len(attentions.numbers), prefix, grid, readers, blocks)


def _watch(model: nn.Module, example: Tensor) -> tuple[Attentions, list[_Call]]:
    """The attention of one forward pass, and the calls of modules that have some."""
    calls: list[_Call] = []
    pending: list[tuple[int, Any]] = []
    attentions = Attentions(graph=False)

    def before(_module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        pending.append((attentions.calls, first_argument(args, kwargs)))

    def after(module: nn.Module, _args: Any, output: Any) -> None:
        first, tokens = pending.pop()
        if attentions.calls > first:
            calls.append(_Call(module, first, attentions.calls, tokens, tokens_of(output)))

    with torch.no_grad():
        handles: list[Any] = []
        try:
            for _, module in open_modules(model):
                handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
                handles.append(module.register_forward_hook(after))
            with attentions:
                model(example.clone())
        finally:
            for handle in handles:
                handle.remove()
    return attentions, calls


def _places(model: nn.Module, image: Tensor, tokens: int) -> tuple[int, tuple[int, int]]:
    """The prefix and the grid of the tokens: the only ones at which every changed place of the picture answers.

    The first attention weighs a token by its own content alone. A change of one place therefore changes the weights of
    that place's token, and no ratio of two other weights in a row of another token.
    """
    height, width = image.shape[2:]
    for prefix in range(min(_MOST_PREFIX, tokens - 1)):
        rows = round(((tokens - prefix) * height / width) ** 0.5)
        columns = (tokens - prefix) // max(rows, 1)
        square = height * columns == width * rows and height % rows == 0 == width % columns
        if square and rows * columns == tokens - prefix and min(rows, columns) > 1:
            places = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows // 2, columns // 3)]
            answers = _answers(model, image, (rows, columns), places)
            wanted = [prefix + row * columns + column for row, column in places]
            if answers == wanted:
                return prefix, (rows, columns)
    raise UnsuitableModel(f"no place of the picture was found for its {tokens} tokens")


def _answers(model: nn.Module, image: Tensor, grid: tuple[int, int], places: Sequence[tuple[int, int]]) -> list[int]:
    """The token whose weight in the first attention changes most, for each changed place of a grid; -1 for none."""
    with torch.no_grad(), Attentions(graph=False) as attentions:
        model(_changed(image, grid, places))
    weights = attentions.matrices[0].double().clamp_min(1e-300).log()
    change = weights[1:] - weights[:1]
    change = (change - change.median(-1, keepdim=True).values).abs().flatten(1, 2).median(1).values
    # A token that nothing changed answers with rounding alone.
    answers = torch.where(change.amax(1) > 1e-4, change.argmax(1), -1)
    return [int(answer) for answer in answers]


def _changed(image: Tensor, grid: tuple[int, int], places: Sequence[tuple[int, int]]) -> Tensor:
    """The image, and a copy for each place of a grid with noise there, (1 + places, C, H, W)."""
    height, width = image.shape[2] // grid[0], image.shape[3] // grid[1]
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).to(image) * (image.std() + 1)
    images = image.repeat(len(places) + 1, 1, 1, 1)
    for copy, (row, column) in zip(images[1:], places):
        top, left = row * height, column * width
        copy[:, top : top + height, left : left + width] += noise[0, :, top : top + height, left : left + width]
    return images


def _mixes_elsewhere(model: nn.Module, blocks: Blocks, image: Tensor, grid: tuple[int, int]) -> bool:
    """Whether a token changes with the content of another one although each attends to itself alone."""
    entered: list[Tensor] = []

    def before(_module: nn.Module, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        entered.append(first_argument(args, kwargs).clone())

    handle = blocks.modules[0].register_forward_pre_hook(before, with_kwargs=True)
    try:
        with torch.no_grad(), blocks.recording() as behind, Unmixed():
            model(_changed(image, grid, [(grid[0] // 2, grid[1] // 2)]))
    finally:
        handle.remove()
    return bool((_moved(behind[-1]) & ~_moved(entered[0])).any())


def _moved(tokens: Tensor) -> Tensor:
    """Which tokens differ between the two rows of (2, T, K)."""
    difference = (tokens[1] - tokens[0]).abs().amax(-1)
    return difference > 1e-4 * difference.amax()


def _readers(model: nn.Module, example: Tensor, plain: Tensor) -> tuple[int, ...]:
    """The tokens whose rows of the last attention the scores depend on: each row makes one token of the last block."""
    with torch.enable_grad(), Attentions(graph=True) as attentions:
        scores = model(example.clone())
    if not torch.allclose(scores, plain, rtol=1e-4, atol=1e-4):
        raise UnsuitableModel("recording its attention changes the scores")
    weights = torch.linspace(-1, 1, scores.shape[1]).to(scores)
    [gradient] = torch.autograd.grad((scores * (weights + 0.1)).sum(), attentions.matrices[-1:])
    strength = gradient.abs().amax((0, 1, 3))
    return tuple(int(token) for token in (strength > _READ * strength.amax()).nonzero()[:, 0])


def _blocks(
    model: nn.Module, example: Tensor, attentions: Attentions, calls: Sequence[_Call], plain: Tensor
) -> Blocks | None:
    """The blocks as a chain of modules; None where they are none, or where the scores depend on more than the last."""
    outermost: dict[int, _Call] = {}
    for call in calls:  # a module ends after those inside it
        inside = [number for number in attentions.numbers if call.first <= number < call.last]
        if len(inside) == 1:
            outermost[inside[0]] = call
    chain = [outermost[number] for number in attentions.numbers if number in outermost]
    if len(chain) < len(attentions.numbers) or len({id(call.module) for call in chain}) < len(chain):
        return None
    given = [*(call.tokens for call in chain[1:]), chain[-1].output]
    if not all(_equal(call.output, tokens) for call, tokens in zip(chain, given)):
        return None
    blocks = Blocks(model, [call.module for call in chain])
    with torch.no_grad():
        with blocks.recording() as tokens:
            model(example.clone())
        scores = blocks.tail(example[:1], torch.cat(tokens[::-1]))
    return blocks if same(scores[: len(example)], plain) else None


def _equal(one: Any, other: Any) -> bool:
    return isinstance(one, Tensor) and isinstance(other, Tensor) and one.ndim == 3 and torch.equal(one, other)
