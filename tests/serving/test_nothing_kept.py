"""An answered row leaves nothing behind that only a full garbage collection would find."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from PIL import Image
from ts.context import Context

from explain_handler import ExplainHandler
from heatserve.serving.errors import Refusal, refusal_of
from heatserve.serving.service import Row
from tests.serving.small import picture
from tests.serving.test_handler import EXPLAIN, PREDICT, ask, handler

Made = tuple[ExplainHandler, Context]


class Sent(bytearray):
    """A body that can be asked whether it is still there."""


class Members(dict[str, Any]):
    """A JSON body that can be asked the same."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return handler(tmp_path_factory.mktemp("archive"), {"explain": {"max_pixels": 100_000, "max_image_bytes": 500_000}})


@pytest.fixture
def counting_alone() -> Iterator[None]:
    """Nothing is freed but by its reference count."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


ROWS: dict[str, tuple[int, Any, dict[str, Any]]] = {
    "a prediction": (200, picture(), PREDICT),
    "a map": (200, picture(), EXPLAIN),
    "a smoothed map": (200, picture(), {**EXPLAIN, "X-Explain-Method": "smoothgrad", "X-Explain-Samples": "3"}),
    "no picture": (415, b"not a picture", EXPLAIN),
    "a picture that is cut": (415, picture()[:200], EXPLAIN),
    "too many pixels": (413, picture(400, 400), EXPLAIN),
    "too many bytes": (413, bytes(600_000), PREDICT),
    "an unknown option": (400, picture(), {**EXPLAIN, "X-Explain-Lime": "1"}),
    "an option of another type": (400, picture(), {**EXPLAIN, "X-Explain-Samples": "many"}),
    "nothing acceptable": (406, picture(), {**EXPLAIN, "Accept": "text/html"}),
    "no base64": (400, {"data": "?"}, EXPLAIN),
    "no list of instances": (400, {"instances": 3}, EXPLAIN),
    "an instance that is none": (400, {"instances": [3]}, EXPLAIN),
    "inputs without a shape": (400, {"inputs": [{"datatype": "BYTES", "data": ["?"]}]}, EXPLAIN),
}


def ours() -> Counter[str]:
    """The objects of this package that are there, pictures and tensors, by type."""
    types = (type(each) for each in gc.get_objects())
    packages = ("heatserve", "PIL", "torch")
    return Counter(each.__qualname__ for each in types if str(each.__module__).startswith(packages))


@pytest.mark.usefixtures("counting_alone")
@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_freed_by_its_reference_count_once_it_is_answered(small: Made, name: str) -> None:
    status, content, headers = ROWS[name]
    ask(small, ({"body": type(content)(content)}, headers))  # what is made once, is made here
    before = ours()
    body: Any = Sent(content) if isinstance(content, bytes) else Members(content)
    watched, row = weakref.ref(body), {"body": body}
    del body
    assert ask(small, (row, headers))[0][0] == status
    del row
    assert watched() is None
    assert ours() - before == Counter()


@pytest.mark.usefixtures("counting_alone")
def test_a_row_whose_answer_cannot_be_written_is_freed_as_well(small: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyError("injected")

    monkeypatch.setattr(type(small[0].service.responder.report), "prediction", fails)
    body = Sent(picture())
    watched, row = weakref.ref(body), {"body": body}
    del body
    assert ask(small, (row, PREDICT))[0][0] == 500
    del row
    assert watched() is None


@pytest.mark.usefixtures("counting_alone")
def test_a_pass_that_failed_keeps_no_tensors(small: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Any]] = []

    def fails(x: torch.Tensor) -> torch.Tensor:
        held.append(weakref.ref(x))
        raise RuntimeError("injected")

    monkeypatch.setattr(small[0].model, "forward", fails)
    rows = [({"body": bytearray(picture(seed=seed))}, PREDICT) for seed in range(2)]
    assert [status for status, *_ in ask(small, *rows)] == [500, 500]
    assert len(held) == 3 and [each() for each in held] == [None] * 3


@pytest.mark.usefixtures("counting_alone")
def test_a_chunk_that_nobody_waits_for_is_freed_with_its_row(small: Made) -> None:
    loop, before = small[0].service.loop, ours()
    headers = {**EXPLAIN, "X-Explain-Method": "smoothgrad", "X-Explain-Samples": "3"}
    loop.begin(["id"])
    loop.admit(Row("id", {"body": bytearray(picture())}, headers))
    for _ in range(2):
        loop.step()
    assert loop.busy and not loop.streaming()
    assert loop.begin([]) == 1
    assert ours() - before == Counter()


def test_a_kept_refusal_has_forgotten_how_it_came_about() -> None:
    try:
        try:
            Image.open("/nowhere")
        except OSError as error:
            raise Refusal(400, "a sentence") from error
    except Refusal as raised:
        kept = refusal_of(raised)
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)
    assert (kept.code, str(kept)) == (400, "a sentence")
