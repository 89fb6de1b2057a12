"""Metrics of several worker processes as one: whichever is asked, asks the others.

The workers of `iotflow serve --workers N` share a port, so a scrape reaches any of them. Each
gives its families out on a socket in a directory that they share.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog
from prometheus_client.core import Metric

_ANSWER_S = 1.0
_MAX_BYTES = 16 * 1024 * 1024
_log = structlog.get_logger(__name__)


class _Sample(msgspec.Struct, array_like=True):
    name: str
    labels: dict[str, str]
    value: float


class _Family(msgspec.Struct, array_like=True):
    name: str
    documentation: str
    type: str
    samples: list[_Sample]


class Siblings:
    """One worker among others. `name` is what its samples are labelled with, as `worker`."""

    def __init__(
        self, directory: Path, name: str, families: Callable[[], Iterable[Metric]]
    ) -> None:
        self._directory = directory
        self._name = name
        self._families = families

    async def serve(self, stop: asyncio.Event) -> None:
        """Give out this worker's families until `stop`; a supervised worker runs this."""
        path = self._directory / f"{self._name}.sock"
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._answer, path)
        try:
            async with server:
                await stop.wait()
        finally:
            path.unlink(missing_ok=True)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(msgspec.msgpack.encode(list(self._encoded())))
        with suppress(OSError):
            await writer.drain()
        writer.close()

    def _encoded(self) -> Iterator[_Family]:
        for family in self._families():
            samples = [
                _Sample(sample.name, dict(sample.labels), float(sample.value))
                for sample in family.samples
            ]
            yield _Family(family.name, family.documentation, family.type, samples)

    async def all_families(self) -> list[Metric]:
        """The families of every worker that answers in time, this one included."""
        sockets = sorted(self._directory.glob("*.sock"))
        merged: dict[str, Metric] = {}
        for path, families in zip(sockets, await asyncio.gather(*map(_ask, sockets)), strict=True):
            for family in families:
                metric = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": path.stem}
                    metric.add_sample(sample.name, labels, sample.value)
        return list(merged.values())


async def _ask(path: Path) -> list[_Family]:
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_unix_connection(path)
            try:
                answer = await _read_all(reader)
            finally:
                writer.close()
        return msgspec.msgpack.decode(answer, type=list[_Family])
    except (OSError, TimeoutError, msgspec.DecodeError):
        _log.warning("worker_metrics_missing", worker=path.stem)
        return []


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := await reader.read(65_536):
        size += len(part)
        if size > _MAX_BYTES:
            raise OSError("A worker's metrics are too large.")
        parts.append(part)
    return b"".join(parts)
