"""Methods that an archive or an installed package brings: they are asked for as any other."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heatserve.engine import METHODS, Explainer, Query, registry
from heatserve.imaging import decode
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.loading import load_extensions
from heatserve.serving.settings import SettingsError, read_settings
from tests.engine.added import rise
from tests.serving.small import Small, picture, small_service
from tests.serving.test_handler import EXPLAIN, ask, handler

MODULE = Path(rise.__file__).read_text() + "\nfrom heatserve.engine import register\nregister(METHOD)\n"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Nothing that a test adds to the registry stays there, and no module of an archive stays imported."""
    methods, modules = dict(METHODS), set(sys.modules)
    yield
    registry._methods.clear()
    registry._methods.update(methods)
    for name in set(sys.modules) - modules:
        if name.startswith("brought"):
            del sys.modules[name]


def archive(folder: Path, monkeypatch: pytest.MonkeyPatch, **modules: str) -> Path:
    """A folder with modules, from which Python can import, as TorchServe arranges it for an archive."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_an_archives_module_brings_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = archive(tmp_path, monkeypatch, brought_rise=MODULE)
    made = handler(folder, {"explain": {"extensions": ["brought_rise"], "method": "visible", "samples": 20}})
    row = {"body": bytearray(picture(32, 32))}
    described, by_default, asked, smoothed = ask(
        made,
        ({}, {**EXPLAIN, "url_path": "describe"}),
        (row, EXPLAIN),
        (
            row,
            {
                **EXPLAIN,
                "url_path": "visible",
                "X-Explain-Output": "npy",
                "X-Explain-Seed": "3",
                "X-Explain-Target": "2",
            },
        ),
        (row, {**EXPLAIN, "url_path": "smoothgrad", "X-Explain-Samples": "3"}),
    )
    assert described[0] == 200 and "visible" in described[1]["methods"]
    assert (
        described[1]["options"]["method"]["default"] == "visible"
        and "visible" in described[1]["options"]["method"]["allowed"]
    )
    assert by_default[1]["explanations"][0]["method"] == "visible"
    assert by_default[1]["explanations"][0]["quality"]["samples_used"] == 20
    assert smoothed[1]["explanations"][0]["method"] == "smoothgrad"
    image, _ = made[0].service.settings.preprocess.tensor(decode(picture(32, 32), 10**6), 10**6)
    query = Query("visible", target=2, samples=20, seed=3)
    (expected,) = Explainer(Small().eval(), torch.rand(1, 3, 32, 32)).explain(image[None], query)
    found = np.load(io.BytesIO(asked[1]))
    assert np.abs(found - expected.map.numpy()).max() <= 1e-5 * float(expected.map.abs().max())


def test_without_the_setting_the_module_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = handler(archive(tmp_path, monkeypatch, brought_rise=MODULE))
    ((status, answer, _),) = ask(made, ({"body": bytearray(picture())}, {**EXPLAIN, "url_path": "visible"}))
    assert status == 400 and "method" in answer["message"] and "brought_rise" not in sys.modules


def test_two_services_of_one_process_share_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = archive(tmp_path, monkeypatch, brought_rise=MODULE)
    for _ in range(2):
        assert "visible" in small_service(folder, {"explain": {"extensions": ["brought_rise"]}}).explainer.methods()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "ModuleNotFoundError: No module named 'brought"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("class Broken(", "SyntaxError"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("from heatserve.engine import METHODS, register\nregister(METHODS['cam'])", "there is a method 'cam' already"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_a_module_that_fails_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None, said: str
) -> None:
    name = f"brought_{abs(hash(source))}"
    archive(tmp_path, monkeypatch, **({name: source} if source else {}))
    with pytest.raises(ArchiveError) as refused:
        small_service(tmp_path, {"explain": {"extensions": [name]}})
    message = str(refused.value)
    assert message.startswith("explain.extensions: ") and name in message and said in message and "\n" not in message


GRADIENT = """
from dataclasses import replace
from heatserve.engine import METHODS, register
from heatserve.engine.sampling import Noise
from tests.engine.added import rise
"""


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            "replace(METHODS['gradient'], name='odd', reduce=lambda a: a)",
            r"reduce must give a map \(h, w\) of floats, ",
        ),
        ("replace(METHODS['gradient'], name='odd', attribute=lambda s: 1 / 0)", "ZeroDivisionError: division by zero"),
        ("replace(METHODS['gradient'], name='odd', attribute=lambda s: exit(3))", "SystemExit: 3"),
        (
            "replace(METHODS['gradient'], name='odd', attribute=lambda s: s.gradients[:1])",
            "one attribution for each row",
        ),
        ("replace(METHODS['smoothgrad'], name='odd', reduce=lambda a: a.mean())", "reduce must give"),
        (
            "replace(rise.METHOD, name='odd', draws=type('D', (rise.Masks,), {'weigh': lambda s, f, a: a[:1]}))",
            "weigh must give 2 attributions for 2, and gives 1",
        ),
        (
            "replace(rise.METHOD, name='odd', draws=type('D', (rise.Masks,), {'weigh': lambda s, f, a: a}))",
            "reduce must",
        ),
        (
            "replace(rise.METHOD, name='odd', draws=type('D', (rise.Masks,), {'draw': lambda s, f, n: s._image}))",
            "draw must give",
        ),
    ],
)
def test_an_added_method_that_fails_is_a_sentence_at_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: str, said: str
) -> None:
    name = f"brought_{abs(hash(row))}"
    archive(tmp_path, monkeypatch, **{name: f"{GRADIENT}\nregister({row})\n"})
    with pytest.raises(
        ArchiveError, match=f"^method 'odd' fails on this network: .*{said}.*; correct the method, or do"
    ):
        small_service(tmp_path, {"explain": {"extensions": [name]}})


def test_an_installed_package_that_fails_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class Entry:
        name = "theirs"

        def load(self) -> None:
            raise ImportError("no\nsuch thing")

    monkeypatch.setattr(registry, "_entry_points", lambda: (Entry(),))
    with pytest.raises(ArchiveError, match=r"^entry point 'theirs' .*ImportError: no such thing; correct that package"):
        load_extensions([])


@pytest.mark.parametrize("value", ["a-b", [""], [3], ["a."], {"a": 1}, 3, ["../rise"], ["rise.py:x"]])
def test_names_that_no_import_statement_has_are_refused(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"explain\.extensions is "):
        read_settings({"explain": {"extensions": value}}, {})


def test_one_module_may_stand_without_a_list() -> None:
    assert read_settings({"explain": {"extensions": "package.methods"}}, {}).extensions == ("package.methods",)
