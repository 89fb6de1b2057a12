"""The stores that the suites of registry, telemetry and events run on.

One for each module and adapter, as fresh devices, users and names keep the tests apart.
"""

from collections.abc import AsyncGenerator

import pytest

from tests.contract import events_adapters, registry_adapters, telemetry_adapters
from tests.contract.events_adapters import EventsHarness
from tests.contract.registry_adapters import RegistryHarness
from tests.contract.telemetry_adapters import TelemetryHarness
from tests.contract.telemetry_device import DrivenDevice


@pytest.fixture(scope="module", params=telemetry_adapters.ADAPTERS)
async def telemetry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[TelemetryHarness]:
    start: telemetry_adapters.Start = request.param
    async with start(tmp_path_factory.mktemp("telemetry")) as harness:
        yield harness


@pytest.fixture(scope="module", params=registry_adapters.ADAPTERS)
async def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[RegistryHarness]:
    start: registry_adapters.Start = request.param
    async with start(tmp_path_factory.mktemp("registry")) as harness:
        yield harness


@pytest.fixture(scope="module", params=events_adapters.ADAPTERS)
async def events(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[EventsHarness]:
    start: events_adapters.Start = request.param
    async with start(tmp_path_factory.mktemp("events")) as harness:
        yield harness


@pytest.fixture
def driven(telemetry: TelemetryHarness) -> DrivenDevice:
    """A device without points."""
    return DrivenDevice(telemetry)
