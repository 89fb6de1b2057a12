"""Schemathesis against a served instance: for the tests, and by hand for as long as one likes.

python -m tests.fuzz.schemathesis_run --minutes 15 [--configured]
"""

import argparse
import os
import random
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.process.conftest import Credentials, register, served

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "tests" / "process" / "schemathesis.toml"
ALL_PHASES = "examples,coverage,fuzzing,stateful"
# Examples of each operation in a round; rounds follow each other until the time is over.
_ROUND = 100


def command(url: str, credentials: Credentials, *options: str) -> list[str]:
    """Its command line: every call with the credentials of a user and of one of their devices."""
    return [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG),
        "run", f"{url}/openapi.json",
        "--header", f"Authorization: Bearer {credentials.token}",
        "--header", f"X-API-Key: {credentials.api_key}",
        "--continue-on-failure", "--warnings", "off", "--generation-database", "none",
        *options,
    ]  # fmt: skip


def environment() -> dict[str, str]:
    """Where it finds what it has to be taught."""
    return os.environ | {
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.fuzz.schemathesis_hooks",
    }


def run(
    url: str, directory: Path, *, phases: str, examples: int, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """A short run that does the same each time."""
    options = ("--phases", phases, "--max-examples", str(examples), "--seed", "1")
    return subprocess.run(
        command(url, register(url), *options),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=directory,
        env=environment(),
    )


def main() -> int:
    """A long run, on embedded stores or those of the environment; it prints how to repeat it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=15)
    arguments.add_argument("--seed", type=int, default=random.randrange(2**31))
    arguments.add_argument("--configured", action="store_true", help="on the IOTFLOW_…__URL stores")
    chosen = arguments.parse_args()
    # A sign-in lasts as long as the run, and nobody reads the log.
    settings = {"IOTFLOW_TOKENS__ACCESS_S": "86400", "IOTFLOW_LOG__LEVEL": "error"}
    if chosen.configured:
        settings |= {name: url for name, url in os.environ.items() if name.endswith("__URL")}
        settings["IOTFLOW_SECRET_KEY"] = secrets.token_urlsafe(48)
    print(f"seed {chosen.seed}", flush=True)
    with (
        tempfile.TemporaryDirectory() as directory,
        served(Path(directory) / "data", **settings) as service,
    ):
        seconds = str(int(chosen.minutes * 60))
        options = ("--phases", ALL_PHASES, "--max-examples", str(_ROUND), "--max-time", seconds)
        options += ("--seed", str(chosen.seed))
        return subprocess.run(
            command(service.url, register(service.url), *options),
            check=False,
            cwd=directory,
            env=environment(),
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
