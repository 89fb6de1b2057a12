"""How the service ends: told once it finishes what it has begun, told twice it ends at once.

uvicorn closes its listener as soon as a signal comes, while a load balancer still sends requests
here. So its handler stands behind one of our own: readiness turns 503 first, and the listener
closes once the delay is over. A timer ends the process where any later step hangs.
"""

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from types import FrameType
from typing import Any

import structlog
import uvicorn
from uvicorn.supervisors import Multiprocess

from iotflow.runtime import Runtime
from iotflow.settings import ServerSettings

CUT_OFF = 1
"""Exit status where something was not finished; the log says what."""

_SIGNALLED = 128  # and the signal's number, as shells have it
# What the parent of several processes sends where its own stop was asked for twice. A second
# SIGTERM would not tell: whoever stops a whole group of processes sends them one as well.
_AT_ONCE: signal.Signals | None = getattr(signal, "SIGQUIT", None)
_POLL_S = 0.1
_TELL_S = 0.5
_log = structlog.get_logger(__name__)


class GracefulStop:
    """The stop of one serving process. `is_worker` says that a parent looks after it."""

    def __init__(self, settings: ServerSettings, *, is_worker: bool = False) -> None:
        self._settings = settings
        self._is_worker = is_worker
        self._runtime: Runtime | None = None
        self._server: uvicorn.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_stopping = False

    def install(self, runtime: Runtime) -> None:
        """Take the signals over from uvicorn, in its main thread, once it serves."""
        self._runtime = runtime
        self._loop = asyncio.get_running_loop()
        # A method of the server: the one way to it in a worker, which uvicorn makes by itself.
        self._server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
        if not isinstance(self._server, uvicorn.Server):
            return
        signal.signal(signal.SIGTERM, self._asked)
        if not self._is_worker:
            signal.signal(signal.SIGINT, self._asked)
            return
        # Ctrl+C reaches the whole group; the parent passes on what concerns its workers.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if _AT_ONCE is not None:
            signal.signal(_AT_ONCE, self._told_at_once)

    def conclude(self) -> None:
        """After the server has ended: ends the process where something was not finished."""
        runtime = self._runtime
        if runtime is None:
            return
        if runtime.pipeline.unwritten_events or runtime.metrics.cut_off:
            # What was given up may still hold a task or a thread, which would be waited for.
            self._end("stopped_unfinished", CUT_OFF)

    def _asked(self, number: int, _: FrameType | None) -> None:
        if self._is_stopping:
            if not self._is_worker:
                self._end_at_once(number)
            return
        self._is_stopping = True
        timer = threading.Timer(self._settings.stop_s, self._end_late)
        timer.daemon = True
        timer.start()
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._begin)

    def _told_at_once(self, _: int, __: FrameType | None) -> None:
        self._end_at_once(signal.SIGTERM)

    def _begin(self) -> None:
        if self._runtime is not None and self._loop is not None:
            self._runtime.health.draining = True
            _log.info("stopping", listens_for_s=self._settings.stop_delay_s)
            self._loop.call_later(self._settings.stop_delay_s, self._close)

    def _close(self) -> None:
        if self._server is not None:
            self._server.should_exit = True

    def _end_at_once(self, number: int) -> None:
        self._end("stopped_at_once", _SIGNALLED + number)

    def _end_late(self) -> None:
        self._end("stop_took_too_long", CUT_OFF)

    def _end(self, why: str, status: int) -> None:
        """What was acknowledged is durable, so that a process may end anywhere."""
        # In a thread: whoever hangs may hold the log, or be interrupted while writing to it.
        teller = threading.Thread(target=self._tell, args=(why,), daemon=True)
        teller.start()
        teller.join(_TELL_S)
        os._exit(status)

    def _tell(self, why: str) -> None:
        runtime = self._runtime
        if runtime is not None:
            metrics, events = runtime.metrics, runtime.pipeline.unwritten_events
            _log.warning(why, requests=metrics.in_flight + metrics.cut_off, events=events)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()


class ConcludingServer(uvicorn.Server):
    """A server that comes to its end while its event loop still runs."""

    def __init__(self, config: uvicorn.Config, stop: GracefulStop) -> None:
        super().__init__(config)
        self._stop = stop

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        await super().serve(sockets)
        self._stop.conclude()


class Workers(Multiprocess):
    """Several processes; told twice to stop, all end at once. `status` is theirs together."""

    def __init__(self, *arguments: Any, stop_s: float, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._stop_s = stop_s
        self._again: int | None = None
        self.status = 0

    def handle_term(self) -> None:
        self._told(signal.SIGTERM)
        super().handle_term()

    def handle_int(self) -> None:
        self._told(signal.SIGINT)
        super().handle_int()

    def _told(self, number: int) -> None:
        """Signals are looked at twice a second, so that both may be there at once."""
        if self.should_exit.is_set():
            self._again = number

    def join_all(self) -> None:
        """Wait for the workers, which end by themselves within their bound."""
        deadline_s = time.monotonic() + self._stop_s + 1.0
        while any(process.process.is_alive() for process in self.processes):
            self._look_for_stops()
            if self._again is not None and _AT_ONCE is not None:
                self._send(_AT_ONCE)
                self.status = _SIGNALLED + self._again
                self._again = None
            if time.monotonic() > deadline_s:
                self._send(signal.SIGKILL)
            time.sleep(_POLL_S)
        clean = (0, None, -signal.SIGTERM)
        if self.status == 0 and any(each.exitcode not in clean for each in self.processes):
            self.status = CUT_OFF

    def _look_for_stops(self) -> None:
        """Other signals, which ask for more workers or fewer, come too late."""
        for sent in self.signal_queue:
            if sent in (signal.SIGTERM, signal.SIGINT):
                self._told(sent)
        self.signal_queue.clear()

    def _send(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.process.is_alive() and process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, number)
