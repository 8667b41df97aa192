"""Settings are refused in one sentence that names the key, the value and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from heatserve.engine import UnsuitableModel
from heatserve.serving.integrity import ArchiveError
from heatserve.serving.settings import Limits, SettingsError, read_settings
from heatserve.serving.start import service
from tests.serving.small import CONFIG, LABELS, small_service, unpacked

NAN, INF = float("nan"), float("inf")


def test_an_empty_configuration_is_the_stock_handlers_preprocessing() -> None:
    settings = read_settings(None, {})
    assert (settings.preprocess.resize, settings.preprocess.crop) == (256, 224)
    assert settings.preprocess.mean == (0.485, 0.456, 0.406)
    assert settings.limits == Limits()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"explain": {"grpc_stream": "yes"}}, "explain.grpc_stream is 'yes'; true or false is allowed"),
        (
            {"explain": {"grpc_stream": True}, "continuousBatching": True},
            "explain.grpc_stream: true does not go with continuousBatching: true",
        ),
        ({"explain": {"optimize": 1}}, "explain.optimize is 1; true, packed, folded or false is allowed"),
        ({"explain": {"precision": "int8"}}, "explain.precision is 'int8'; allowed: float32, tf32, bfloat16, float16"),
        ({"explain": {"precision": ["float32"]}}, "explain.precision is ['float32']; allowed: float32"),
        ({"explain": {"colour": "jet"}}, "explain.colour is not a setting; allowed: method"),
        ({"explain": {"max_samples": 0}}, "explain.max_samples is 0; a whole number of at least 1"),
        ({"explain": {"max_samples": True}}, "explain.max_samples is True"),
        ({"explain": {"max_batch_work": 10}}, "explain.max_batch_work is 10; at least 3 x max_samples + 1 = 601"),
        ({"explain": "gradcam"}, "explain must be a block of keys, not str"),
        ({"explain": {"layer": 3}}, "explain.layer is 3"),
        ({"preprocess": {"size": 3}}, "preprocess.size is not a setting; allowed: resize"),
        ({"preprocess": {"std": [1, 0, 1]}}, "preprocess.std is [1, 0, 1]; three positive numbers"),
        ({"preprocess": {"interpolation": "area"}}, "preprocess.interpolation is 'area'; allowed: nearest"),
        ({"preprocess": {"crop": None}}, "preprocess.crop is null"),
        ({"pt2": {"compile": {"enable": True}}}, "pt2 is not supported"),
        ({"pt2": "inductor"}, "pt2 is not supported"),
        (["explain"], "model-config.yaml is a list, not a mapping of settings"),
        ({"asyncCommunication": "false"}, "asyncCommunication is 'false'; true or false is allowed"),
        ({"continuousBatching": "no"}, "continuousBatching is 'no'; true or false is allowed"),
        ({"preproces": {"crop": 3}}, "preproces is not a setting; do you mean preprocess?"),
        ({"explian": {"method": "cam"}}, "explian is not a setting; do you mean explain?"),
        ({"Explain": {}}, "Explain is not a setting; do you mean explain?"),
        ({"preprocess": {"std": [NAN, 1, 1]}}, "preprocess.std is [nan, 1, 1]; three positive numbers"),
        ({"preprocess": {"std": [1, -0.0, 1]}}, "preprocess.std is [1, -0.0, 1]; three positive numbers"),
        ({"preprocess": {"std": [1, INF, 1]}}, "preprocess.std is [1, inf, 1]; three positive numbers"),
        (
            {"preprocess": {"std": [1, 1e-320, 1]}},
            "preprocess.mean [0.485, 0.456, 0.406] and preprocess.std [1",
        ),
        ({"preprocess": {"mean": [1, NAN, 1]}}, "preprocess.mean is [1, nan, 1]; three numbers"),
        ({"preprocess": {"mean": [1, -INF, 1]}}, "preprocess.mean is [1, -inf, 1]; three numbers"),
        ({"preprocess": {"mean": [10**400, 0, 0]}}, "preprocess.mean is [1000"),
        ({"preprocess": {"mean": ["0.5", 0, 0]}}, "preprocess.mean is ['0.5', 0, 0]; three numbers"),
        ({"preprocess": {"crop": INF}}, "preprocess.crop is inf; a whole number"),
        ({"preprocess": {"resize": NAN}}, "preprocess.resize is nan; a whole number"),
        ({"explain": {"max_samples": INF}}, "explain.max_samples is inf; a whole number"),
        ({"explain": {"chunk": NAN}}, "explain.chunk is nan; a whole number"),
        (
            {"preprocess": {"crop": 100_000}},
            "preprocess.crop is 100000, which makes 10000000000 pixels of every picture; at most max_resized_pixels",
        ),
        ({"preprocess": {"resize": 2001}}, "preprocess.resize is 2001, which makes 4004001 pixels of every picture"),
        ({"asyncCommunication": True}, "asyncCommunication: true is not supported"),
        ({"handler": {"profile": True}}, "handler.profile: true is not supported"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(config: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings(config, {})
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)


def test_a_view_as_large_as_the_limit_is_allowed() -> None:
    assert read_settings({"preprocess": {"crop": 2000, "resize": 2000}}, {}).preprocess.crop == 2000


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HEATSERVE_MAX_SAMPLE", "HEATSERVE_MAX_SAMPLES"),
        ("HEATSERVE_MAX_PIXEL", "HEATSERVE_MAX_PIXELS"),
        ("HEATSERVE_MAX_ANYTHING_AT_ALL", "HEATSERVE_MAX_"),
    ],
)
def test_a_limit_of_the_environment_that_is_none_is_refused_with_the_nearest_one(name: str, meant: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({}, {name: "3"})
    assert str(refused.value).startswith(f"the environment variable {name} is no limit; do you mean {meant}")
    assert "HEATSERVE_MAX_SIDE" in str(refused.value)


@pytest.mark.parametrize(
    ("config", "environment", "said"),
    [
        ({}, {"HEATSERVE_MAXSAMPLES": "3"}, "HEATSERVE_MAXSAMPLES is ignored; do you mean HEATSERVE_MAX_SAMPLES?"),
        ({}, {"HEATSERVE_SAMPLES": "3"}, "HEATSERVE_SAMPLES is ignored; do you mean HEATSERVE_MAX_SAMPLES?"),
        ({}, {"HEAT_SERVE_MAX_SIDE": "3"}, "HEAT_SERVE_MAX_SIDE is ignored; do you mean HEATSERVE_MAX_SIDE?"),
        ({}, {"heatserve_max_side": "3"}, "heatserve_max_side is ignored; do you mean HEATSERVE_MAX_SIDE?"),
        ({}, {"HEATSERVE_TOKENS": "3"}, "HEATSERVE_TOKENS is ignored; do you mean HEATSERVE_TOKEN?"),
        ({"continousBatching": True}, {}, "continousBatching is ignored; do you mean continuousBatching?"),
        ({"batchsize": 8}, {}, "batchsize is ignored; do you mean batchSize?"),
    ],
)
def test_what_is_nearly_another_setting_is_a_warning(
    config: dict[str, Any], environment: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    read_settings(config, environment)
    assert said in caplog.text


def test_names_of_others_are_no_typing_errors(caplog: pytest.LogCaptureFixture) -> None:
    service = ("HEATSERVE", "HEATSERVE_MAX", "HEATSERVE_LIVE")
    endings = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_ADDR",
               "PORT_8080_TCP_PORT", "PORT_8080_TCP_PROTO", "PORT_53_UDP")  # fmt: skip
    variables = [f"{name}_{ending}" for name in service for ending in endings]
    others = ["HEATSERVE_TOKEN", "HEATSERVE_HOME", "HEATSERVE_REPLICAS", "HEATMAP_MAX_SIDE_BAR", "PATH", "MAX_SAMPLES"]
    config = {"responseTimeout": 3, "handler": {}, "micro_batching": {}, "postprocess": 1, "labels": [], 7: 8}
    read_settings(config, dict.fromkeys([*variables, *others], "tcp://10.0.0.1:8080"))
    assert caplog.text == ""


@pytest.mark.parametrize("key", ["x-explain", "x-preprocess", ".preprocess", "_explain", "_preproces", "x-batchSize"])
def test_a_block_that_only_holds_an_anchor_of_yaml_is_no_typing_error(
    key: str, caplog: pytest.LogCaptureFixture
) -> None:
    shared = {"crop": 200}
    assert read_settings({key: shared, "preprocess": shared}, {}).preprocess.crop == 200
    assert caplog.text == ""


def test_an_explainer_of_somebody_elses_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    read_settings({"explainer": {"name": "captum"}}, {})
    assert "the setting explainer is ignored; do you mean explain?" in caplog.text


def test_pt2_that_is_switched_off_is_no_obstacle() -> None:
    read_settings({"pt2": {"compile": {"enable": False}}}, {})


def test_ipex_is_refused_by_name() -> None:
    with pytest.raises(SettingsError, match="TS_IPEX_ENABLE"):
        read_settings({}, {"TS_IPEX_ENABLE": "true"})


def test_the_environment_tightens_a_limit_and_never_loosens_it() -> None:
    config = {"explain": {"max_samples": 100}}
    assert read_settings(config, {"HEATSERVE_MAX_SAMPLES": "20"}).limits.max_samples == 20
    assert read_settings(config, {"HEATSERVE_MAX_SAMPLES": "5000"}).limits.max_samples == 100


@pytest.mark.parametrize(
    ("explain", "error", "said"),
    [
        ({"method": "lime"}, SettingsError, "explain.method is 'lime': method must be one of: gradcam"),
        ({"samples": 1000}, SettingsError, "explain.samples is 1000; at most max_samples = 200"),
        ({"opacity": 2}, SettingsError, "explain.opacity is 2: opacity must be a number from 0 to 1"),
        ({"layer": "nowhere"}, UnsuitableModel, "the network has no module 'nowhere'"),
        (
            {"method": "cam", "layer": "trunk.0"},
            UnsuitableModel,
            "cam is not possible: layer 'trunk.0' is not what",
        ),
    ],
)
def test_a_default_that_a_request_could_not_ask_for_is_refused_at_load(
    tmp_path: Path, explain: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as refused:
        small_service(tmp_path, {"explain": explain})
    assert str(refused.value).startswith(said)


def test_labels_must_be_the_models_classes_and_no_others(tmp_path: Path) -> None:
    manifest = unpacked(tmp_path)
    for names in ([*LABELS, "beyond"], LABELS[:-1]):
        (tmp_path / "index_to_name.json").write_text(json.dumps(dict(enumerate(names))))
        with pytest.raises(ArchiveError, match="classes 0 to 5, and no others"):
            service(tmp_path, manifest, read_settings(CONFIG, {}), torch.device("cpu"))


@pytest.mark.parametrize("key", ["explain.activation", "preprocess.crop"])
def test_a_key_with_a_dot_is_refused_with_the_block_that_it_belongs_to(key):
    block, _, name = key.partition(".")
    with pytest.raises(SettingsError, match=f"{key} is not a setting; write it as `{block}: {{{name}: 7}}`"):
        read_settings({key: 7}, {})
