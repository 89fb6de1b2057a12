"""What the OpenAPI document says holds for whatever a generator thinks of."""

import subprocess
import sys
from pathlib import Path

from tests.process.conftest import register, served

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = 30
LONGEST_S = 400


def test_the_service_does_what_its_document_says(tmp_path: Path) -> None:
    with served(tmp_path / "data") as service:
        credentials = register(service.url)
        command = [
            sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
            "run", f"{service.url}/openapi.json",
            "--header", f"Authorization: Bearer {credentials.token}",
            "--header", f"X-API-Key: {credentials.api_key}",
            "--max-examples", str(EXAMPLES), "--phases", "examples,coverage,fuzzing",
            "--continue-on-failure", "--warnings", "off", "--seed", "1",
            "--generation-database", "none",
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LONGEST_S, check=False, cwd=tmp_path
        )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
