"""The trial of added methods: each runs once on an example at load, so that no request is the first to find a fault."""

from __future__ import annotations

from torch import Tensor

from .errors import UnsuitableModel, is_out_of_memory
from .explainer import Explainer
from .methods import BUILT_IN
from .query import Attribution, Query
from .registry import METHODS, ExtensionError
from .smoothing import Smoothing
from .steps import finish

#: Draws of one method; more than one, so that a mistaken number of rows is noticed.
_DRAWS = 2


def try_added(explainer: Explainer, example: Tensor) -> None:
    """Runs every added method that the network can answer. Raises ExtensionError for one that fails.

    example: two images, (2, C, H, W), on the model's device.
    """
    for name in explainer.methods():
        if all(METHODS[name] is not method for method in BUILT_IN):
            _try(explainer, name, example)


def _try(explainer: Explainer, name: str, example: Tensor) -> None:
    try:
        problem = _problem(explainer, name, example)
    except (KeyboardInterrupt, ExtensionError):
        raise
    except BaseException as error:  # a method may do anything, even call sys.exit()
        if is_out_of_memory(error):
            raise
        problem = str(error) if isinstance(error, UnsuitableModel) else f"{type(error).__name__}: {error}"
    if problem:
        raise ExtensionError(f"method {name!r} fails on this network: {problem}")


def _problem(explainer: Explainer, name: str, example: Tensor) -> str:
    """A sentence on the first value that has a wrong shape; empty for a method that works."""
    query = Query(name, target=0)
    if query.smoothed:
        return _problem_of_draws(explainer, name, example[0])
    images = example.clone()  # a network may work in place on its input
    return _problem_of_map([row[0] for row in explainer.run(images, [[query]] * len(images))[1]])


def _problem_of_draws(explainer: Explainer, name: str, image: Tensor) -> str:
    smoothing = explainer.begin(image, Query(name, target=0, samples=max(_DRAWS, METHODS[name].min_samples)))
    if not isinstance(smoothing, Smoothing):  # its samples are the network's own business
        finish(explainer.advance([(smoothing, smoothing.left)]))
        return _problem_of_map([smoothing.estimate()])
    count = _DRAWS + smoothing.query.references
    drawn, wanted = tuple(smoothing.draw(count).shape), (count, *image.shape)
    if drawn != wanted:
        return f"draw must give {wanted} for {count} draws, and gives {drawn}"
    finish(explainer.advance([(smoothing, count)]))
    if smoothing.samples != _DRAWS:
        return f"weigh must give {_DRAWS} attributions for {_DRAWS}, and gives {smoothing.samples}"
    return _problem_of_map([smoothing.estimate()])


def _problem_of_map(found: list[Attribution]) -> str:
    if len({one.values.shape for one in found}) > 1:
        return "attribute must give one attribution for each row, all of one shape"
    one = found[0].map
    if one.ndim != 2 or not one.numel() or not one.is_floating_point():
        return f"reduce must give a map (h, w) of floats, and gives {tuple(one.shape)} of {one.dtype}"
    return ""
