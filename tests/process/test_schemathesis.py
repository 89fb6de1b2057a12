"""What the OpenAPI document says holds for whatever a generator thinks of, alone and in turn."""

from pathlib import Path

from tests.fuzz.schemathesis_run import run
from tests.process.conftest import served

EXAMPLES = 30
SEQUENCES = 20
LONGEST_S = 400


def test_the_service_does_what_its_document_says(tmp_path: Path) -> None:
    with served(tmp_path / "data") as service:
        phases = "examples,coverage,fuzzing"
        done = run(service.url, tmp_path, phases=phases, examples=EXAMPLES, timeout_s=LONGEST_S)
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]


def test_calls_that_follow_from_each_other_do_too(tmp_path: Path) -> None:
    with served(tmp_path / "data") as service:
        done = run(
            service.url, tmp_path, phases="stateful", examples=SEQUENCES, timeout_s=LONGEST_S
        )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    assert "Stateful" in done.stdout
