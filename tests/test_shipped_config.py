"""The config.properties that is shipped is safe as it stands. e2e/test_security.py tries it."""

from __future__ import annotations

import re

import pytest
from ts.model_server import load_properties

from devtools.paths import ROOT
from heatserve.serving.settings import Limits
from heatserve_tools.torchserve import properties
from heatserve_tools.torchserve.shipped import METRICS, SERVER_CONFIG

SHIPPED = properties.read(SERVER_CONFIG)


def test_every_address_is_on_loopback() -> None:
    addresses = {name: value for name, value in SHIPPED.items() if name.endswith("_address")}
    assert {re.sub(r"^http://|:\d+$", "", value) for value in addresses.values()} == {"127.0.0.1"}
    assert len(addresses) == 5


def test_tokens_are_asked_for_and_models_come_from_the_folder_alone() -> None:
    wanted = {
        "disable_token_authorization": "false",
        "enable_model_api": "false",
        "use_env_allowed_urls": "false",
        "enable_envvars_config": "false",
        "install_py_dep_per_model": "false",
        "model_store": "model_store",
    }
    assert {name: SHIPPED[name] for name in wanted} == wanted
    assert (ROOT / SHIPPED["model_store"]).is_dir() and SERVER_CONFIG.parent / SHIPPED["metrics_config"] == METRICS


@pytest.mark.parametrize(
    "url", ["file:///a/b.mar", "http://127.0.0.1/a.mar", "https://a/b.mar", "s3://a/b.mar", "ftp://a/b.mar", "none.mar"]
)
def test_no_address_of_an_archive_is_allowed(url: str) -> None:
    assert not any(re.fullmatch(allowed, url) for allowed in SHIPPED["allowed_urls"].split(","))


@pytest.mark.parametrize("name", ["MY_SECRET", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "DB_PASSWORD", "A_CREDENTIAL_FILE"])
def test_secrets_of_the_environment_stay_with_the_server(name: str) -> None:
    assert re.fullmatch(SHIPPED["blacklist_env_vars"], name)


def test_the_frontend_has_memory_for_as_many_slow_clients_as_may_wait() -> None:
    assert load_properties(str(SERVER_CONFIG))["vmargs"] == SHIPPED["vmargs"]
    sizes = dict(re.findall(r"-(Xmx|XX:MaxDirectMemorySize=)(\d+)m(?:\s|$)", SHIPPED["vmargs"]))
    direct = int(sizes["XX:MaxDirectMemorySize="]) * 2**20
    # A body that is on its way takes up to half as much again as it has bytes.
    assert direct >= 1.5 * int(SHIPPED["job_queue_size"]) * int(SHIPPED["max_request_size"])
    assert int(sizes["Xmx"]) >= 512
    assert f"`{SHIPPED['vmargs']}`" in (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")


def test_what_the_handler_sends_stays_below_what_kills_its_worker() -> None:
    assert Limits().max_response_bytes < int(SHIPPED["max_response_size"])
    assert int(SHIPPED["max_request_size"]) < 2 * Limits().max_image_bytes
