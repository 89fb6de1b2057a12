"""`iotflow serve`: the service in a process of its own."""

import contextlib
import functools
import gc
import os
import socket
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.types import ASGIApp

from iotflow.app import MAX_BODY_BYTES, create_app
from iotflow.cli.allocator import spare_memory
from iotflow.cli.listeners import listening
from iotflow.cli.stopping import ConcludingServer, GracefulStop, Workers
from iotflow.errors import ConfigurationError
from iotflow.http.connections import Connection, Guard
from iotflow.observability.logging import configure_logging
from iotflow.runtime import Runtime, WorkerProcess
from iotflow.runtime.stores import create_stores, is_embedded
from iotflow.settings import SCHEMES, Settings, TlsSettings

# Chunked bodies have more bytes on the wire than in them; one of small chunks about twice.
_WIRE_FACTOR = 2
# Descriptors that stores, files and the process itself use.
_OTHER_FILES = 512
# The writer of the SQLite store waits for the interpreter's lock at each of its steps. With the
# default of 5 ms a busy event loop holds it up for most of a commit (docs/decisions/0002).
_SWITCH_INTERVAL_S = 0.0005


def run(
    *,
    host: str | None,
    port: int | None,
    workers: int,
    data_dir: Path | None,
    tls_certificate: Path | None = None,
    tls_key: Path | None = None,
) -> None:
    """Serve until a signal ends it. Raises ConfigurationError for settings that cannot work."""
    tls = {"certificate": tls_certificate, "key": tls_key}
    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir}
    given["tls"] = {name: path for name, path in tls.items() if path is not None} or None
    settings = Settings.load(**{name: value for name, value in given.items() if value is not None})
    # What cannot work is said now, in a line: a secret that is missing or short, a URL, files.
    settings.token_secrets()
    create_stores(settings)
    if workers > 1 and (embedded := _embedded_roles(settings)):
        raise ConfigurationError(
            f"--workers: several processes cannot share embedded stores ({', '.join(embedded)}). "
            "Give these roles a server, or serve with one worker."
        )
    if settings.tls.certificate is not None:
        tls_context(settings.tls)
    configure_logging(settings.log)
    with contextlib.ExitStack() as stack:
        listeners = stack.enter_context(listening(settings))
        _lock_data_dir(settings, stack)
        if workers == 1:
            _serve_here(settings, listeners)
        else:
            _serve_with(workers, settings, listeners)


def _serve_here(settings: Settings, listeners: list[socket.socket]) -> None:
    spare_memory()
    guard, stop = _guard(settings), GracefulStop(settings.server)

    def ready(runtime: Runtime) -> None:
        stop.install(runtime)
        settle()
        _announce(settings, listeners[0])

    app = create_app(settings, on_ready=ready, guard=guard)
    config = uvicorn.Config(app, **_server_options(settings, guard))
    ConcludingServer(config, stop).run(sockets=listeners)


def _announce(settings: Settings, listener: socket.socket) -> None:
    scheme = "http" if settings.tls.certificate is None else "https"
    address = f"{scheme}://{_url_host(settings.host)}:{listener.getsockname()[1]}"
    _say(f"IoTFlow serves on {address} (API explorer: {address}/docs)")
    _say(f"Data: {_where_data_lies(settings)}")


def _serve_with(workers: int, settings: Settings, listeners: list[socket.socket]) -> None:
    """Several processes; one that dies is started again. Requests wait until one is ready."""
    with tempfile.TemporaryDirectory(prefix="iotflow-workers-") as directory:
        guard = _guard(settings)
        app = functools.partial(create_worker_app, settings, Path(directory), guard)
        options = _server_options(settings, guard)
        config = uvicorn.Config(app, factory=True, workers=workers, **options)
        _announce(settings, listeners[0])
        _say(f"Workers: {workers}")
        processes = Workers(config, sockets=listeners, stop_s=settings.server.stop_s)
        processes.run()
    if processes.status:
        raise SystemExit(processes.status)


def create_worker_app(settings: Settings, directory: Path, guard: Guard) -> ASGIApp:
    """The application of one of several processes, made in that process."""
    spare_memory()
    configure_logging(settings.log)
    worker = WorkerProcess(directory, str(os.getpid()))
    stop = GracefulStop(settings.server, is_worker=True)

    def ready(runtime: Runtime) -> None:
        stop.install(runtime)
        settle()

    return create_app(settings, on_ready=ready, worker=worker, guard=guard)


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


def _guard(settings: Settings) -> Guard:
    ingest = settings.ingest
    body = max(ingest.max_body_bytes, ingest.max_batch_bytes, MAX_BODY_BYTES)
    connections = _room_for(settings.server.max_connections)
    return Guard(settings.server, connections, body * _WIRE_FACTOR, settings.server.hsts_s)


def _room_for(connections: int) -> int:
    """How many connections the process's limit of open files allows, raised as far as it goes."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return connections
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # some systems allow less than they say
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return min(connections, max(soft - _OTHER_FILES, soft // 2))


def tls_context(tls: TlsSettings, *_: object) -> ssl.SSLContext:
    """TLS 1.2 and newer, with the library's choice of ciphers.

    Raises:
        ConfigurationError: the files cannot be read, or do not belong together.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    password = "" if tls.key_password is None else tls.key_password.get_secret_value()
    try:
        # Always a password: without one the library would ask for it on the terminal.
        context.load_cert_chain(str(tls.certificate), tls.key, lambda: password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"
        raise ConfigurationError(
            f"IOTFLOW_TLS__CERTIFICATE: cannot use it with IOTFLOW_TLS__KEY ({reason})"
        ) from None
    return context


def _server_options(settings: Settings, guard: Guard) -> dict[str, Any]:
    tls = settings.tls
    context = None if tls.certificate is None else functools.partial(tls_context, tls)
    return {
        "http": functools.partial(Connection, guard=guard),
        "ssl_context_factory": context,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "lifespan": "on",
        "ws": "none",
        "timeout_graceful_shutdown": settings.server.grace_s,
        "backlog": settings.server.backlog,
    }


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
