"""The same on the four real stores: an adapter has limits of its own."""

from pathlib import Path

import pytest

from tests.fuzz.schemathesis_run import run
from tests.process.conftest import served
from tests.servers.stores import four_stores

pytestmark = pytest.mark.servers
PHASES = "fuzzing,stateful"
EXAMPLES = 3
LONGEST_S = 400


def test_the_service_does_what_its_document_says_on_real_stores(tmp_path: Path) -> None:
    with four_stores() as settings, served(tmp_path / "data", **settings) as service:
        done = run(service.url, tmp_path, phases=PHASES, examples=EXAMPLES, timeout_s=LONGEST_S)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
