"""Programs from the environment, and the local servers' own modules."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "deploy" / "local"))


def run_tool(
    name: str, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program of this environment in the checkout, with nothing but `environment` set."""
    command = [str(Path(sys.executable).with_name(name)), *arguments]
    path = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=path | (environment or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
