"""The queries of a pass are split into those of other methods once."""

from __future__ import annotations

import pytest
from torch.nn import functional

from heatserve.engine import Explainer, Query, network
from tests.engine.one_layer import IMAGE, of


def test_queries_are_split_once_where_none_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    one, asked = Explainer(of(functional.relu), IMAGE.clone()), list[Query]()
    factors = network.factors

    def counted(query: Query) -> list[Query]:
        asked.append(query)
        return factors(query)

    monkeypatch.setattr(network, "factors", counted)
    one.explain(IMAGE, Query("gradient", target=1))
    assert len(asked) == 1
