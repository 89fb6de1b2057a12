"""Times the calls of a store."""

import inspect
from collections.abc import Awaitable, Callable
from functools import wraps
from operator import attrgetter
from time import perf_counter
from typing import Any, TypeVar, cast

from iotflow.observability.metrics import Latencies, Metrics

T = TypeVar("T")

# Health watches these.
_LEFT_OUT = frozenset({"open", "close", "ping", "statistics"})
TIMED_BY_CALLERS = {
    "registry": frozenset({"key_record"}),
    "telemetry": frozenset({"write", "latest"}),
    "cache": frozenset({"key", "record"}),
}
"""By role, what is timed where it is called, and not twice: a submission pays for no detour."""


def timed(store: T, role: str, metrics: Metrics) -> T:
    """The same store; each of its other calls counts under its name in `iotflow_store_seconds`."""
    # A look at a property costs next to nothing so; by `__getattr__` it costs half a microsecond.
    properties = {
        name: property(attrgetter(f"_store.{name}"))
        for name, _ in inspect.getmembers(type(store), lambda each: isinstance(each, property))
    }
    kind = type("Timed", (_Timed,), properties)
    return cast(T, kind(store, role, metrics))


class _Timed:
    """Passes everything on. What is not timed is the store's own method, without a detour."""

    def __init__(self, store: object, role: str, metrics: Metrics) -> None:
        self._store = store
        left_out = _LEFT_OUT | TIMED_BY_CALLERS.get(role, frozenset())
        for name, function in inspect.getmembers(type(store), inspect.isfunction):
            if name.startswith("_"):
                continue
            method = getattr(store, name)
            if inspect.iscoroutinefunction(function) and name not in left_out:
                method = _timed_method(method, role, name, metrics)
            setattr(self, name, method)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _timed_method(
    method: Callable[..., Awaitable[Any]], role: str, name: str, metrics: Metrics
) -> Callable[..., Awaitable[Any]]:
    latencies: Latencies | None = None

    @wraps(method)
    async def call(*arguments: Any, **named: Any) -> Any:
        nonlocal latencies
        if latencies is None:  # what is never called is not shown
            latencies = metrics.store(role, name)
        began = perf_counter()
        try:
            return await method(*arguments, **named)
        finally:
            latencies.observe(perf_counter() - began)

    return call
