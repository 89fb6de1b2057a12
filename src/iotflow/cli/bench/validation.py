"""Key validation without HTTP: `python -m iotflow.cli.bench.validation`, in a process of its own.

A ValidationPlan as MessagePack on stdin, a ValidationResult on stdout. What is driven is the
service's own KeyAuthenticator over the stores that the IOTFLOW_ settings name, or the naive app's
SELECT over its pool.
"""

import asyncio
import time
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import cycle

from iotflow.cli.bench.helper import carry_out
from iotflow.cli.bench.plan import ValidationPlan, ValidationResult, summarise
from iotflow.devices.authentication import KeyAuthenticator
from iotflow.errors import NotAuthenticatedError, StoreUnavailableError
from iotflow.observability.logging import configure_logging
from iotflow.observability.metrics import Metrics
from iotflow.pipeline.cache_epoch import CacheEpoch
from iotflow.pipeline.supervisor import Supervisor
from iotflow.runtime.stores import Stores, create_stores
from iotflow.settings import LogSettings, Settings

_READY_S, _STOP_S = 10.0, 2.0
# A warm look-up never waits: now and then what listens for revocations must have its turn.
_TURN = 64

Check = Callable[[str], Awaitable[object]]


async def validate(plan: ValidationPlan) -> ValidationResult:
    """Carry out a plan in this process.

    Raises:
        StoreUnavailableError: a store does not answer.
        NotAuthenticatedError: a key opens nothing.
    """
    async with _checker(plan) as check:
        for key in plan.keys:
            await check(key)
        measures = time.perf_counter() + plan.warmup_s
        ends = measures + plan.seconds
        latencies = array("d")

        async def ask(keys: list[str]) -> None:
            for number, key in enumerate(cycle(keys)):
                began = time.perf_counter()
                await check(key)
                now = time.perf_counter()
                if now >= ends:
                    return
                if now >= measures:
                    latencies.append(now - began)
                if number % _TURN == _TURN - 1:
                    await asyncio.sleep(0)

        # Keys of their own for each task: two that ask for one key share a look-up.
        tasks = min(plan.tasks, len(plan.keys))
        await asyncio.gather(*(ask(plan.keys[number::tasks]) for number in range(tasks)))
    return ValidationResult(plan.seconds, len(latencies), summarise(latencies))


def _checker(plan: ValidationPlan) -> AbstractAsyncContextManager[Check]:
    return _naive(plan) if plan.dsn else _authenticator(plan.cold)


@asynccontextmanager
async def _naive(plan: ValidationPlan) -> AsyncGenerator[Check]:
    from iotflow.cli.bench.naive_app import KEY, pool_for

    async with pool_for(plan.dsn, plan.schema) as pool:

        async def check(key: str) -> object:
            found = await pool.fetchrow(KEY, key)
            if found is None:
                raise NotAuthenticatedError("This API key opens nothing.")
            return found

        yield check


@asynccontextmanager
async def _authenticator(cold: bool) -> AsyncGenerator[Check]:
    stores = create_stores(Settings.load())
    keys = KeyAuthenticator(stores.registry, stores.cache, stores.epoch, Metrics(), time.time)

    async def check_cold(key: str) -> object:
        keys.forget_all()
        return await keys.authenticate(key)

    async with AsyncExitStack() as stack:
        for store in (stores.registry, stores.cache):
            stack.push_async_callback(store.close)
            await store.open()
        supervisor = _workers(stores, keys)
        supervisor.start()
        stack.push_async_callback(supervisor.stop, _STOP_S)
        await _believing(stores)
        yield check_cold if cold else keys.authenticate


def _workers(stores: Stores, keys: KeyAuthenticator) -> Supervisor:
    """What keeps keys believable: without them an entry lives a second, and Redis is a miss."""
    supervisor = Supervisor()
    supervisor.add("revocations", keys.listen)
    for name, run in stores.cache.workers().items():
        supervisor.add(name, run)
    if isinstance(stores.epoch, CacheEpoch):
        stores.epoch.listeners.append(keys.forget_all)
        supervisor.add("cache_epoch", stores.epoch.follow)
    return supervisor


async def _believing(stores: Stores) -> None:
    deadline = time.monotonic() + _READY_S
    while stores.epoch.current is None or not (
        stores.cache.hears or stores.cache.backend == "none"
    ):
        if time.monotonic() > deadline:
            raise StoreUnavailableError("cache")
        await asyncio.sleep(0.02)


def main() -> None:
    """The process: a ValidationPlan comes in, a ValidationResult goes out."""
    configure_logging(LogSettings(level="warning"))  # to stderr: on stdout stands the result
    carry_out(ValidationPlan, validate)


if __name__ == "__main__":
    main()
