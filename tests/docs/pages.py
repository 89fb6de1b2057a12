"""The pages below docs/: their shell lines are run, and what they show is what comes out.

A ```sh block is run; a ```json or ```text block right after it is what it prints. Blocks that
need servers or another machine are ```console and are not run. Each page has a fresh service.
`python -m tests.docs.pages PAGE...` writes what really came out into pages.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from tests.process.conftest import served

DOCS = Path(__file__).parents[2] / "docs"
ADDRESS = "http://127.0.0.1:8000"
LONGEST_S = 60

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.M | re.S)
_MARK = "\x1e"
_WIDTH = 96

# What differs from run to run: that it is there, and of which kind, is all that is compared.
_VOLATILE = frozenset(
    {
        "access_token", "refresh_token", "token", "api_key", "invitation", "prefix", "request_id",
        "next_cursor", "uptime_s", "created_at", "updated_at", "last_login_at", "expires_at",
        "finished_at", "at",
    }
)  # fmt: skip
# Null until the service has come to stamp it.
_STAMPED_LATER = frozenset({"last_seen", "last_used_at"})
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SECRET = re.compile(r"(iot[a-z]_|eyJ)[\w.-]+")


@dataclass(frozen=True)
class Block:
    """A shell block, and where the block that shows its output stands, if there is one."""

    script: str
    shown: str | None
    kind: str
    start: int
    end: int


@dataclass(frozen=True)
class Run:
    """What came of a page: the output of each block, and the operations that succeeded."""

    blocks: list[Block]
    outputs: list[str]
    operations: set[tuple[str, str]]
    failure: str | None


# Their lines build clients, flash devices, measure or start servers: other tests run those.
_ELSEWHERE = frozenset({"benchmarks.md", "devices.md", "sdks.md", "stores.md"})


def pages() -> list[Path]:
    """The pages that have something to run."""
    found = [*DOCS.glob("*.md"), *DOCS.glob("api/*.md")]
    return sorted(
        page
        for page in found
        if page.name not in _ELSEWHERE or page.parent != DOCS
        if "```sh\n" in page.read_text("utf-8")
    )


def blocks_of(text: str) -> Iterator[Block]:
    matches = list(_BLOCK.finditer(text))
    for index, match in enumerate(matches):
        if match[1] not in ("sh", "bash"):
            continue
        after = matches[index + 1] if index + 1 < len(matches) else None
        if after and after[1] in ("json", "text") and not text[match.end() : after.start()].strip():
            yield Block(match[2], after[2], after[1], after.start(2), after.end(2))
        else:
            yield Block(match[2], None, "", 0, 0)


def run_page(page: Path) -> Run:
    """Run a page's blocks, in order and in one shell, against a service of their own."""
    blocks = list(blocks_of(page.read_text("utf-8")))
    script = "\n".join(f"printf '{_MARK}'\n{block.script}" for block in blocks)
    with tempfile.TemporaryDirectory() as directory:
        data_dir = Path(directory) / "data"
        if ADDRESS not in script:
            return _run(script, blocks, directory)
        with served(data_dir, IOTFLOW_RATE_LIMITS__ENABLED="true") as service:
            run = _run(script, blocks, directory, service.url)
            return replace(run, operations=_operations(service.url))


def _run(script: str, blocks: list[Block], directory: str, url: str = ADDRESS) -> Run:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script.replace(ADDRESS, url)],
        cwd=directory,
        env=_environment(Path(directory) / "data"),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )
    outputs = done.stdout.replace(url, ADDRESS).split(_MARK)[1:]
    failure = None if done.returncode == 0 else f"ended with {done.returncode}: {done.stderr}"
    return Run(blocks, outputs, set(), failure)


def _environment(data_dir: Path) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if "IOTFLOW" not in name}
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return inherited | {"PATH": commands, "IOTFLOW_DATA_DIR": str(data_dir)}


_COUNTED = re.compile(r'iotflow_http_requests_total\{method="(\w+)",route="([^"]+)",status="(\d+)"')


def _operations(url: str) -> set[tuple[str, str]]:
    """Which operations the service has answered with success."""
    metrics = httpx.get(f"{url}/metrics", timeout=10).text
    counted = {
        (method, route) for method, route, status in _COUNTED.findall(metrics) if status < "4"
    }
    return counted | {("GET", "/metrics")} if "iotflow_" in metrics else counted


def differences(run: Run) -> list[str]:
    """In what the page shows something else than what came out."""
    found = [run.failure] if run.failure else []
    for block, output in zip(run.blocks, run.outputs, strict=False):
        if block.shown is not None and not same(block, output):
            found.append(f"{block.script}printed\n{output}\nand the page shows\n{block.shown}")
    return found


def same(block: Block, output: str) -> bool:
    shown = block.shown or ""
    if block.kind == "text":
        return _masked(shown.strip()) == _masked(output.strip())
    try:
        expected, actual = list(_documents(shown)), list(_documents(output))
    except json.JSONDecodeError:
        return False
    return len(expected) == len(actual) and all(map(_alike, expected, actual))


def _documents(text: str) -> Iterator[Any]:
    decoder, text = json.JSONDecoder(), text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].lstrip()


def _alike(shown: Any, actual: Any, key: str = "") -> bool:
    if key in _STAMPED_LATER:
        return all(each is None or _TIME.fullmatch(each) for each in (shown, actual))
    if type(shown) is not type(actual):
        return False
    if isinstance(shown, dict):
        return shown.keys() == actual.keys() and all(
            _alike(shown[name], actual[name], name) for name in shown
        )
    if isinstance(shown, list):
        return len(shown) == len(actual) and all(map(_alike, shown, actual))
    if key in _VOLATILE or (key == "id" and isinstance(shown, str)):
        return True
    return bool(shown == actual) or _both_recent(shown, actual)


def _both_recent(shown: Any, actual: Any) -> bool:
    """Times that the service's clock made; those that a device sent must be as shown."""
    if not (isinstance(shown, str) and _TIME.fullmatch(shown) and _TIME.fullmatch(actual)):
        return False
    return abs(datetime.now(UTC) - datetime.fromisoformat(actual)) < timedelta(days=2)


def _masked(text: str) -> str:
    text = _SECRET.sub("<secret>", _TIME.sub("<time>", text))
    return re.sub(r'"[0-9a-f]{24}"', "<etag>", text)


def renewed(text: str, run: Run) -> str:
    """The page with what really came out, where it shows something else."""
    for block, output in reversed(list(zip(run.blocks, run.outputs, strict=False))):
        if block.shown is not None and not same(block, output):
            shown = output.strip() + "\n"
            if block.kind == "json":
                shown = "".join(_written(each) + "\n" for each in _documents(output))
            text = text[: block.start] + shown + text[block.end :]
    return text


def _written(value: Any, indent: int = 0) -> str:
    """JSON that is easy to read: on one line what fits there."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= _WIDTH or not isinstance(value, dict | list) or not value:
        return line
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        parts = [
            f"{pad}{json.dumps(key)}: {_written(each, indent + 2)}" for key, each in value.items()
        ]
    else:
        parts = [pad + _written(each, indent + 2) for each in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return f"{opening}\n" + ",\n".join(parts) + f"\n{' ' * indent}{closing}"


if __name__ == "__main__":
    for name in sys.argv[1:]:
        page = Path(name)
        run = run_page(page)
        print(page, run.failure or "ran")
        page.write_text(renewed(page.read_text("utf-8"), run), "utf-8")
