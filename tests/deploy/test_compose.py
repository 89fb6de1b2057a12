"""The compose files, as the program that reads them understands them."""

import json
import re
from typing import Any

import pytest

from iotflow.settings import Settings
from tests.deploy.conftest import run_tool

SECRETS = {"IOTFLOW_SECRET_KEY": "s" * 32, "POSTGRES_PASSWORD": "p4ssword"}
ONE_SHOT = {"mongo-replica-set"}
STORES = {"postgres", "cassandra", "redis", "mongo"}


def compose(*arguments: str, **environment: str) -> Any:
    done = run_tool(
        "docker-compose", *arguments, "config", "--format", "json", environment=environment
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", name="services")
def _services() -> dict[str, Any]:
    return compose(**SECRETS)["services"]


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_a_missing_secret_is_named_and_stops_everything(missing: str) -> None:
    given = {name: value for name, value in SECRETS.items() if name != missing}
    done = run_tool("docker-compose", "config", "--quiet", environment=given)
    assert done.returncode != 0
    assert f"{missing} is missing a value: set {missing} to" in done.stderr


def test_every_store_runs_from_a_pinned_image(services: dict[str, Any]) -> None:
    assert services.keys() == STORES | ONE_SHOT | {"api"}
    for name in STORES | ONE_SHOT:
        assert re.search(r":\d+\.\d+", services[name]["image"]), name


def test_every_service_is_bounded(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert int(service["mem_limit"]) <= 3 * 2**30, name
        assert service["logging"]["options"] == {"max-size": "10m", "max-file": "3"}, name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_lasting_service_has_a_health_check(services: dict[str, Any]) -> None:
    for name in services.keys() - ONE_SHOT:
        check = services[name]["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL"}, name
        assert check["retries"] > 0, name


def test_the_api_waits_for_every_store(services: dict[str, Any]) -> None:
    waits = {name: on["condition"] for name, on in services["api"]["depends_on"].items()}
    assert waits == {
        "postgres": "service_healthy",
        "cassandra": "service_healthy",
        "redis": "service_healthy",
        "mongo-replica-set": "service_completed_successfully",
    }
    assert services["mongo-replica-set"]["depends_on"]["mongo"]["condition"] == "service_healthy"


def test_the_api_may_do_nothing_that_it_does_not_need(services: dict[str, Any]) -> None:
    api = services["api"]
    assert api["read_only"] is True
    assert api["cap_drop"] == ["ALL"]
    assert [volume["target"] for volume in api["volumes"]] == ["/data"]


def test_the_api_alone_is_published_and_on_the_loopback(services: dict[str, Any]) -> None:
    published = {name for name, service in services.items() if service.get("ports")}
    assert published == {"api"}
    assert [port["host_ip"] for port in services["api"]["ports"]] == ["127.0.0.1"]
    config = compose(**SECRETS)
    assert config["networks"]["stores"]["internal"] is True
    assert all("front" not in services[name]["networks"] for name in STORES | ONE_SHOT)


def test_every_variable_of_the_api_is_a_setting(services: dict[str, Any]) -> None:
    environment: dict[str, str] = services["api"]["environment"]
    for name in environment:
        first = name.removeprefix("IOTFLOW_").partition("__")[0].lower()
        assert first in Settings.model_fields, name
    roles = [name for name in environment if name.endswith("__URL")]
    assert len(roles) == 4


def test_every_url_names_a_service_that_is_there(services: dict[str, Any]) -> None:
    for name, value in services["api"]["environment"].items():
        if name.endswith("__URL"):
            host = re.search(r"(?://|@)([a-z]+):\d+/", value)
            assert host, name
            assert host[1] in services, name


def test_the_embedded_service_needs_nothing_set() -> None:
    config = compose("-f", "deploy/docker/embedded.yaml")
    api = config["services"]["api"]
    assert config["services"].keys() == {"api"}
    assert api["read_only"] is True
    assert "environment" not in api
