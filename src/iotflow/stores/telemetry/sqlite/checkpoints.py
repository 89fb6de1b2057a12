"""Bringing what was committed from the write-ahead log into the file, beside the writer."""

from concurrent.futures import Future, ThreadPoolExecutor

import structlog

from iotflow.stores.telemetry.sqlite.driver import Connection

PAGES = 1_000
"""How long the log grows, about, before it is copied: SQLite's own measure."""

_log = structlog.get_logger(__name__)


class Checkpointer:
    """Copies the log into the file on a thread of its own.

    Left to itself SQLite does that within the commit that makes the log long enough, and whoever
    waits for that commit waits for a thousand pages more and for two more syncs of the disk. A
    copy beside a busy writer never holds all of the log, though, and only one that does lets the
    log begin anew. So the writer copies what came meanwhile, which is little.

    All belongs to the writer's thread, between its transactions, but `close`.
    """

    def __init__(self, beside: Connection, writer: Connection) -> None:
        self._beside = beside
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, "iotflow-telemetry-checkpoint")
        self._copy: Future[None] | None = None
        self._pages = 0

    def wrote(self, pages: int) -> None:
        """Note about how many pages were committed."""
        self._pages += pages

    def take_turn(self) -> None:
        """Begin a copy where the log is long, or finish the one that is done."""
        try:
            if self._copy is None:
                self._begin_if_long()
            elif self._copy.done():
                self._finish(self._copy)
        except Exception as error:
            # Nothing is lost: the log holds it, and SQLite copies a log that grows too long.
            _log.warning("telemetry_not_checkpointed", error=repr(error))

    def _begin_if_long(self) -> None:
        if self._pages >= PAGES:
            self._pages = 0
            self._copy = self._thread.submit(_copy_log, self._beside)

    def _finish(self, copy: Future[None]) -> None:
        self._copy = None
        copy.result()
        _copy_log(self._writer)

    def close(self) -> None:
        """Wait for the copy that is under way, and close its connection."""
        self._thread.shutdown()
        self._beside.close()


def _copy_log(connection: Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
