"""The service killed at random moments, on the four real stores."""

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.faults.load import Load, fleet_of, missing, told
from tests.process.conftest import served
from tests.servers.stores import four_stores

pytestmark = [pytest.mark.servers]

CHANCE = random.Random(20_260_101)


async def killed_rounds(tmp_path: Path, rounds: int, settings: dict[str, str]) -> None:
    """Send, kill, start again; at the end every acknowledged point is there."""
    with served(tmp_path, **settings) as service:
        load = Load(await asyncio.to_thread(fleet_of, service.url, 10))
    for _ in range(rounds):
        with served(tmp_path, **settings) as service:
            await load.until_killed(service, CHANCE.uniform(0.3, 1.5), at_least=20)
    with served(tmp_path, **settings) as service:
        lost = await missing(service.url, load)
    told(f"API killed {rounds} times", load, len(lost))
    assert not lost


async def test_killed_at_random_moments(tmp_path: Path) -> None:
    with four_stores() as settings:
        await killed_rounds(tmp_path, 2, settings)


@pytest.mark.faults
@pytest.mark.parametrize("stores", ["embedded", "servers"])
async def test_killed_often(tmp_path: Path, stores: str) -> None:
    rounds = int(os.environ.get("FAULTS_ROUNDS", "10"))
    if stores == "embedded":
        await killed_rounds(tmp_path, rounds, {})
        return
    with four_stores() as settings:
        await killed_rounds(tmp_path, rounds, settings)
