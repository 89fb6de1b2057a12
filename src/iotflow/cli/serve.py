"""`iotflow serve`: the service in a process of its own."""

import contextlib
import functools
import gc
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.types import ASGIApp
from uvicorn.supervisors import Multiprocess

from iotflow.app import create_app
from iotflow.errors import ConfigurationError
from iotflow.observability.logging import configure_logging
from iotflow.runtime import WorkerProcess
from iotflow.runtime.stores import is_embedded
from iotflow.settings import SCHEMES, Settings

# How long requests under way may take once the service was told to stop.
_GRACE_S = 10
# The writer of the SQLite store waits for the interpreter's lock at each of its steps. With the
# default of 5 ms a busy event loop holds it up for most of a commit (docs/decisions/0002).
_SWITCH_INTERVAL_S = 0.0005


def run(*, host: str | None, port: int | None, workers: int, data_dir: Path | None) -> None:
    """Serve until a signal ends it. Raises ConfigurationError for settings that cannot work."""
    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir}
    settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    settings.signing_secret()
    if workers > 1 and (embedded := _embedded_roles(settings)):
        raise ConfigurationError(
            f"--workers: several processes cannot share embedded stores ({', '.join(embedded)}). "
            "Give these roles a server, or serve with one worker."
        )
    configure_logging(settings.log)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(contextlib.closing(_listen(settings)))
        _lock_data_dir(settings, stack)
        if workers == 1:
            _serve_here(settings, listener)
        else:
            _serve_with(workers, settings, listener)


def _serve_here(settings: Settings, listener: socket.socket) -> None:
    app = create_app(settings, on_ready=lambda _: _ready(settings, listener))
    uvicorn.Server(uvicorn.Config(app, **_server_options())).run(sockets=[listener])


def _ready(settings: Settings, listener: socket.socket) -> None:
    settle()
    _announce(settings, listener)


def _announce(settings: Settings, listener: socket.socket) -> None:
    address = f"http://{_url_host(settings.host)}:{listener.getsockname()[1]}"
    _say(f"IoTFlow serves on {address} (API explorer: {address}/docs)")
    _say(f"Data: {_where_data_lies(settings)}")


def _serve_with(workers: int, settings: Settings, listener: socket.socket) -> None:
    """Several processes; one that dies is started again. Requests wait until one is ready."""
    with tempfile.TemporaryDirectory(prefix="iotflow-workers-") as directory:
        app = functools.partial(create_worker_app, settings, Path(directory))
        config = uvicorn.Config(app, factory=True, workers=workers, **_server_options())
        _announce(settings, listener)
        _say(f"Workers: {workers}")
        Multiprocess(config, sockets=[listener]).run()


def create_worker_app(settings: Settings, directory: Path) -> ASGIApp:
    """The application of one of several processes, made in that process."""
    configure_logging(settings.log)
    worker = WorkerProcess(directory, str(os.getpid()))
    return create_app(settings, on_ready=lambda _: settle(), worker=worker)


def _lock_data_dir(settings: Settings, stack: contextlib.ExitStack) -> None:
    """Files of embedded stores belong to one process; the lock goes with it, however it ends."""
    if not any(settings.store_url(role).startswith("sqlite:") for role in SCHEMES):
        return
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(FileLock(settings.data_dir / "lock", timeout=0))
    except Timeout:
        raise ConfigurationError(
            f"IOTFLOW_DATA_DIR: another process serves {settings.data_dir.resolve()}. "
            "Stop it, or choose another directory."
        ) from None
    except OSError as error:
        raise ConfigurationError(
            f"IOTFLOW_DATA_DIR: cannot write to {settings.data_dir} ({error.strerror})"
        ) from None


def _server_options() -> dict[str, Any]:
    return {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "on",
        "ws": "none",
        "timeout_graceful_shutdown": _GRACE_S,
        "timeout_keep_alive": 75,
        "backlog": 2048,
    }


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.host, settings.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"IOTFLOW_PORT: cannot listen on {host}:{port} ({error.strerror}). Choose another port."
        ) from None
    return listener


def settle() -> None:
    """Tune the interpreter for serving."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # What a start leaves behind stays: keep full collections from walking through it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _url_host(host: str) -> str:
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _where_data_lies(settings: Settings) -> str:
    if len(_embedded_roles(settings)) == len(SCHEMES):
        return str(settings.data_dir.resolve())
    backends = (f"{role} {settings.store_url(role).split(':')[0]}" for role in SCHEMES)
    return ", ".join(backends)


def _embedded_roles(settings: Settings) -> list[str]:
    return [role for role in SCHEMES if is_embedded(settings.store_url(role))]


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201
