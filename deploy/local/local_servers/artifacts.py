"""Jars that the servers run from, fetched once for each list of dependencies (a pom.xml)."""

import hashlib
import shutil
from pathlib import Path

from local_servers import packages
from local_servers.errors import say
from local_servers.home import SOURCES, Home

_FETCH_TIMEOUT_S = 900


def jars(home: Home, name: str) -> Path:
    """Where the jars of deploy/local/NAME/pom.xml lie, fetched or not yet.

    Another list is another directory, so that an update never mixes with what was there.
    """
    return home.directory / "lib" / f"{name}-{_digest(_pom(name))}"


def fetch(home: Home, name: str) -> None:
    """Have the jars there.

    Raises:
        LocalServersError: they cannot be fetched.
    """
    target = jars(home, name)
    if target.is_dir():
        return
    packages.install(packages.java, packages.maven)
    say(f"Fetching {name} ...")
    draft = target.with_suffix(".part")
    shutil.rmtree(draft, ignore_errors=True)
    java_home = str(Path(packages.java()).resolve().parents[1])
    fetch_all = "org.apache.maven.plugins:maven-dependency-plugin:copy-dependencies"
    command = [packages.maven(), "-q", "-B", "-f", str(_pom(name)), fetch_all]
    options = ["-DincludeScope=runtime", f"-DoutputDirectory={draft}"]
    packages.run([*command, *options], _FETCH_TIMEOUT_S, environment={"JAVA_HOME": java_home})
    draft.replace(target)


def _pom(name: str) -> Path:
    return SOURCES / name / "pom.xml"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()[:12]
