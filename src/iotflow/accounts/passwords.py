"""Password hashing: argon2id, in a bounded number of threads."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

from passlib.context import CryptContext

from iotflow.errors import OverloadedError

# OWASP's minimum for argon2id. A sign-in costs about 25 ms of one core.
_MEMORY_KIB, _PASSES, _LANES = 19_456, 2, 1
_MAX_WAITING = 64

T = TypeVar("T")
Args = TypeVarTuple("Args")


class Passwords:
    """Hashes and verifies, one at a time, off the event loop; close it at the end."""

    def __init__(self) -> None:
        # Any: the library has no annotations.
        self._context: Any = CryptContext(
            schemes=["argon2"],
            argon2__type="ID",
            argon2__memory_cost=_MEMORY_KIB,
            argon2__time_cost=_PASSES,
            argon2__parallelism=_LANES,
        )
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="passwords")
        self._waiting = 0
        # Computed once at the start, or the first unknown name would take twice as long.
        self._nobody = self._threads.submit(self._hash, secrets.token_urlsafe())

    async def hash(self, password: str) -> str:
        """Raises OverloadedError where too many are waiting."""
        return await self._run(self._hash, password)

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Whether it is the password, and a new hash where the old one's cost is outdated.

        Without a hash (no such user) it takes just as long and is never right.
        """
        return await self._run(self._verify, password, hashed)

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _hash(self, password: str) -> str:
        return str(self._context.hash(password))

    def _verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        if hashed is None:
            self._context.verify(password, self._nobody.result())
            return False, None
        right, renewed = self._context.verify_and_update(password, hashed)
        return bool(right), renewed

    async def _run(self, function: Callable[[*Args], T], *arguments: *Args) -> T:
        if self._waiting >= _MAX_WAITING:
            raise OverloadedError("sign-in")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, function, *arguments)
        finally:
            self._waiting -= 1
