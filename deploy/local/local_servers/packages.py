"""The programs that the servers need: found where they are, installed where root may do so."""

import contextlib
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
from pathlib import Path

from local_servers.errors import LocalServersError, say

_POLICY = Path("/usr/sbin/policy-rc.d")
_REFUSE_TO_START = "#!/bin/sh\nexit 101\n"
_APT_TIMEOUT_S = 900
_one_at_a_time = threading.Lock()


def run(
    command: Sequence[str],
    timeout_s: float,
    *,
    user: str | None = None,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end and return what it printed.

    Raises:
        LocalServersError: it failed, or took too long; the message ends with its last words.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the command is built here, from constants and paths
            list(command),
            input=text or "",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            cwd="/",
            env={**os.environ, **(environment or {})},
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    except subprocess.TimeoutExpired:
        raise LocalServersError(f"{command[0]} took longer than {timeout_s:.0f} s") from None
    except OSError as error:
        raise LocalServersError(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        tail = "\n".join(done.stdout.splitlines()[-15:])
        raise LocalServersError(f"{' '.join(command[:4])} ... failed:\n{tail}")
    return done.stdout


def postgres_bin() -> Path:
    """The directory of the newest PostgreSQL's own programs."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    found = sorted(versions, key=lambda path: int(path.parts[4].split(".")[0]))
    if found:
        return found[-1].parent
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    raise LookupError


def redis_server() -> str:
    return _on_path("redis-server")


def maven() -> str:
    return _on_path("mvn")


@cache
def java() -> str:
    """A Java 17 with its compiler; Cassandra 5 runs on no newer one."""
    candidates = [*Path("/usr/lib/jvm").glob("*17*/bin/java")]
    if home := os.environ.get("JAVA_HOME"):
        candidates.insert(0, Path(home, "bin", "java"))
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if candidate.with_name("javac").exists() and _java_version(candidate) == 17:
            return str(candidate)
    raise LookupError


def _java_version(path: Path) -> int:
    with contextlib.suppress(OSError):
        # Every JDK tells its version in this file: no need to start it.
        release = (path.resolve().parents[1] / "release").read_text()
        if match := re.search(r'^JAVA_VERSION="(\d+)', release, re.MULTILINE):
            return int(match[1])
    return 0


def _on_path(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise LookupError
    return path


Find = Callable[[], object]
_PACKAGES: dict[Find, str] = {
    postgres_bin: "postgresql",
    redis_server: "redis-server",
    java: "openjdk-17-jdk-headless",
    maven: "maven",
}


def install(*needed: Find) -> None:
    """Have the programs that these functions find; installs Debian packages if it may.

    Raises:
        LocalServersError: something is missing and cannot be installed.
    """
    with _one_at_a_time:
        missing = [_PACKAGES[find] for find in _PACKAGES if find in needed and not _there(find)]
        if not missing:
            return
        if os.geteuid() != 0 or shutil.which("apt-get") is None:
            raise LocalServersError(
                f"Not installed: {', '.join(missing)} (Debian's names). Install them, or let "
                "root run this once on a Debian machine: sudo apt-get install " + " ".join(missing)
            )
        say(f"Installing {', '.join(missing)} ...")
        _apt_install(missing)
        still = [_PACKAGES[find] for find in _PACKAGES if find in needed and not _there(find)]
        if still:
            raise LocalServersError(f"Installed, but not to be found: {', '.join(still)}")


def _there(find: Find) -> bool:
    try:
        find()
    except LookupError:
        return False
    return True


def _apt_install(packages: Sequence[str]) -> None:
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-q", "-o", "DPkg::Lock::Timeout=300"]
    run(["apt-get", "update", *wait], _APT_TIMEOUT_S, environment=quiet)
    with _no_daemons():
        install_them = ["apt-get", "install", "-y", "--no-install-recommends", *wait, *packages]
        run(install_them, _APT_TIMEOUT_S, environment=quiet)


@contextlib.contextmanager
def _no_daemons() -> Generator[None]:
    """Keep the packages from starting servers of their own on the default ports."""
    try:
        with _POLICY.open("x") as file:
            file.write(_REFUSE_TO_START)
    except FileExistsError:  # the machine has a policy: it stays
        yield
        return
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)
