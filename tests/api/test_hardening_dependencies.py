"""The audit of dependencies: a finding fails it, a service that is away does not."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "requirements.txt"


@pytest.fixture(scope="module")
def audit() -> Any:
    path = ROOT / "deploy" / "audit" / "audit.py"
    spec = importlib.util.spec_from_file_location("audit", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(*dependencies: dict[str, Any]) -> str:
    return json.dumps({"dependencies": dependencies, "fixes": []})


CLEAN = {"name": "a", "version": "1", "vulns": []}
KNOWN = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("status", "output", "errors", "ends", "says"),
    [
        (0, report(CLEAN), "", 0, "nothing is known against 1 packages"),
        (1, report(CLEAN, KNOWN), "", 1, "b 2: PYSEC-1"),
        (1, report(SKIPPED, KNOWN), "", 1, "b 2: PYSEC-1"),
        (0, report(CLEAN, SKIPPED), "", 0, "nothing could be told of c"),
        (0, report(SKIPPED, SKIPPED), "", 0, "WARNING: requirements.txt was not audited at all"),
        (1, "", "requests.exceptions.ConnectionError: Max retries exceeded", 0, "WARNING"),
        (1, "<html>", "JSONDecodeError", 0, "WARNING"),
        (2, "", "usage: pip-audit [-h]", 1, "did not work (status 2)"),
        (1, "", "No module named pip_audit", 1, "did not work"),
    ],
)
def test_what_a_run_says(
    audit: Any,
    capsys: pytest.CaptureFixture[str],
    status: int,
    output: str,
    errors: str,
    ends: int,
    says: str,
) -> None:
    assert audit.judge(FILE, status, output, errors) == ends
    told = capsys.readouterr()
    assert says in told.out + told.err
