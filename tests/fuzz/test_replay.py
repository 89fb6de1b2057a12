"""What fuzzing found worth keeping, and changes of it that are the same each time."""

import random
from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")
CHANGES = 20
SEEDS = [
    pytest.param(target.name, seed, id=f"{target.name}-{seed.name}")
    for target in sorted(CORPUS.iterdir())
    for seed in sorted(target.iterdir())
]


def test_every_target_has_seeds() -> None:
    assert {target.name for target in CORPUS.iterdir()} == TARGETS.keys()
    assert all(any(target.iterdir()) for target in CORPUS.iterdir())


@pytest.mark.parametrize(("target", "seed"), SEEDS)
def test_what_fuzzing_found_holds(target: str, seed: Path) -> None:
    data, chance = seed.read_bytes(), random.Random(seed.name)
    TARGETS[target](data)
    for _ in range(CHANGES):
        changed = bytearray(data or b"\0")
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(changed))
            if chance.random() < 0.5:
                changed[at] = chance.randrange(256)
            else:
                changed[at:at] = changed[: chance.randint(1, 8)]
        TARGETS[target](bytes(changed))
