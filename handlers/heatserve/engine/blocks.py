"""The blocks of a transformer: a chain of modules with one attention each, and the network around them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class Blocks:
    """Modules that run one after the other, each on the tokens that the one before gives.

    model: the network.
    modules: the blocks, first to last.
    """

    def __init__(self, model: nn.Module, modules: Sequence[nn.Module]) -> None:
        self._model = model
        self.modules = tuple(modules)
        #: Whether the last block gives a tuple of one.
        self._wrapped = False

    @contextmanager
    def recording(self) -> Iterator[list[Tensor]]:
        """A context for one forward pass that gives the tokens behind each block, (N, T, K)."""
        tokens: list[Tensor] = []

        def after(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            self._wrapped = isinstance(output, tuple)
            tokens.append(tokens_of(output))
            # The network gets a copy: the next block may work in place on it.
            return self._output(tokens[-1].clone())

        handles = [module.register_forward_hook(after) for module in self.modules]
        try:
            yield tokens
        finally:
            for handle in handles:
                handle.remove()

    def tail(self, image: Tensor, tokens: Tensor) -> Tensor:
        """The scores that the network behind its blocks gives for tokens: its pooling, last norm and classifier.

        image: (1, C, H, W), on which the network before the blocks runs; the scores do not depend on it.
        tokens: (M, T, K).

        Gives (M, classes).
        """
        *passing, last = self.modules
        functions: dict[nn.Module, Callable[..., Any]] = {
            module: lambda *args, **kwargs: self._output(first_argument(args, kwargs)) for module in passing
        }
        functions[last] = lambda *args, **kwargs: self._output(tokens)
        with _replaced(functions):
            scores: Tensor = self._model(image.repeat(len(tokens), 1, 1, 1))
        return scores

    def _output(self, tokens: Tensor) -> Any:
        return (tokens,) if self._wrapped else tokens


def first_argument(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The tokens that a block is called with, by position or by name."""
    return args[0] if args else next(iter(kwargs.values()), None)


def tokens_of(output: Any) -> Any:
    """The tokens in a block's output, which may be a tuple of one."""
    return output[0] if isinstance(output, tuple) and len(output) == 1 else output


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """A context in which modules run other functions; hooks stay as they are."""
    before = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module in forwards:
            if module in before:
                module.forward = before[module]
            else:
                del module.forward
