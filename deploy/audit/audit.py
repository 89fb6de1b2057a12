"""pip-audit over the pinned dependencies, which tells a finding from a service that is away.

    python deploy/audit/audit.py [requirements file ...]

Ends with 0 where nothing is known against them, with 1 where something is, and, with a warning,
with 0 where the advisory service cannot be asked: a build without internet must not fail.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 120
# How pip-audit's own errors begin when no connection comes about or the answer is none.
_AWAY = (
    "ConnectionError", "ConnectTimeout", "ReadTimeout", "MaxRetryError", "NewConnectionError",
    "NameResolutionError", "ProxyError", "SSLError", "HTTPError", "ServiceError",
    "JSONDecodeError", "Max retries exceeded", "Could not connect", "Failed to query",
)  # fmt: skip


def main(files: list[str]) -> int:
    """The exit status; says one line for each file and each finding."""
    return max(audit(ROOT / file) for file in files or ["requirements.txt"])


def audit(file: Path) -> int:
    """1 where something is known against what the file names."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(file), "--disable-pip"]
    command += ["--require-hashes", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(  # noqa: S603 - the command is built here, from constants and paths
            command, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
    except subprocess.TimeoutExpired:
        return _warn(file, f"no answer within {LONGEST_S} s")
    return judge(file, done.returncode, done.stdout, done.stderr)


def judge(file: Path, status: int, output: str, errors: str) -> int:
    """What a run of pip-audit says: only a report counts as a finding, or as none."""
    report = _report(output)
    if report is None:
        if any(word in errors for word in _AWAY):
            return _warn(file, "the advisory service cannot be reached")
        sys.stderr.write(errors)
        _say(f"{file.name}: pip-audit did not work (status {status})")
        return 1
    found = [
        (dependency["name"], dependency.get("version", "?"), finding["id"])
        for dependency in report
        for finding in dependency.get("vulns", ())
    ]
    for name, version, identifier in found:
        _say(f"{file.name}: {name} {version}: {identifier}")
    if found:
        return 1
    skipped = [dependency["name"] for dependency in report if "skip_reason" in dependency]
    if len(skipped) == len(report):
        return _warn(file, "the advisory service knows none of its packages (a mirror without it?)")
    if skipped:
        _warn(file, f"nothing could be told of {', '.join(skipped)}", "in part")
    _say(f"{file.name}: nothing is known against {len(report) - len(skipped)} packages")
    return 0


def _report(output: str) -> list[dict[str, Any]] | None:
    try:
        document: Any = json.loads(output)
    except ValueError:
        return None
    dependencies: Any = (
        cast("dict[str, Any]", document).get("dependencies") if isinstance(document, dict) else None
    )
    return cast("list[dict[str, Any]]", dependencies) if isinstance(dependencies, list) else None


def _warn(file: Path, why: str, what: str = "at all") -> int:
    print(f"WARNING: {file.name} was not audited {what}: {why}.", file=sys.stderr)  # noqa: T201
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
