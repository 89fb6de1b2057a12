"""Whose key it is: what was looked up last, then the cache, then the registry."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256

import structlog

from iotflow.domain.devices import KeyRecord
from iotflow.domain.secrets import DEVICE_KEY_LENGTH, DEVICE_KEY_PREFIX
from iotflow.errors import NotAllowedError, NotAuthenticatedError, StoreUnavailableError
from iotflow.observability.metrics import Metrics
from iotflow.stores.cache.local import LocalCache, SingleFlight
from iotflow.stores.cache.protocol import CacheStore, Epoch, KeyEntry
from iotflow.stores.registry.protocol import Registry

REVOCATIONS = "revocations"
_REVOKE, _FORGET = "revoke", "forget"
_DIGESTS_A_MESSAGE = 500

# About what one process hears of in the few seconds that they live; the cache knows the others.
# One in this process tells at once, so few need to stand before it.
_CAPACITY, _CAPACITY_IN_PROCESS = 10_000, 2_000
_HEARD_TTL_S = 5.0
_REVOKED_CAPACITY = 100_000
_UNKNOWN_CAPACITY = 10_000
# Without news from the revocation channel nothing may be trusted for longer than a second.
_UNHEARD_TTL_S = 1.0
# Longer than any look-up can be under way, so that none which began before puts the key back.
_REVOKED_TTL_S = 60.0

_log = structlog.get_logger(__name__)


class KeyAuthenticator:
    """Turns a device's key into what it opens.

    `now` is epoch seconds, `monotonic` a clock that never jumps.
    """

    def __init__(
        self,
        registry: Registry,
        cache: CacheStore,
        epoch: Epoch,
        metrics: Metrics,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._cache = cache
        self._epoch = epoch
        self._cache_latency = metrics.store("cache", "key")
        self._registry_latency = metrics.store("registry", "key")
        self._listening = False
        self._forgets = 0
        self._now = now
        capacity = _CAPACITY_IN_PROCESS if cache.is_in_process else _CAPACITY
        self._heard: LocalCache[str, KeyRecord] = LocalCache(capacity, _HEARD_TTL_S, monotonic)
        self._unheard: LocalCache[str, KeyRecord] = LocalCache(_CAPACITY, _UNHEARD_TTL_S, monotonic)
        self._unknown: LocalCache[str, bool] = LocalCache(
            _UNKNOWN_CAPACITY, _UNHEARD_TTL_S, monotonic
        )
        self._revoked: LocalCache[str, bool] = LocalCache(
            _REVOKED_CAPACITY, _REVOKED_TTL_S, monotonic
        )
        self._lookups: SingleFlight[str, KeyRecord | None] = SingleFlight()

    @property
    def _local(self) -> LocalCache[str, KeyRecord]:
        return self._heard if self._listening and self._cache.hears else self._unheard

    @property
    def local_hits(self) -> int:
        return self._heard.hits + self._unheard.hits

    @property
    def local_misses(self) -> int:
        return self._heard.misses + self._unheard.misses

    def known(self, key: str) -> KeyRecord | None:
        """The record of a key that this process knows and that may be used; no waiting.

        None means: ask `authenticate`.
        """
        digest = sha256(key.encode("latin-1", "replace")).hexdigest()
        record = self._local.glance(digest) or self._glance_at_cache(digest)
        if record is None or not record.active:
            return None
        if record.expires_ms is not None and record.expires_ms <= self._now() * 1000:
            return None
        return record

    def _glance_at_cache(self, digest: str) -> KeyRecord | None:
        entry = self._cache.key_at_once(digest)
        if entry is None or entry.record is None:
            return None
        self._local.misses += 1
        self._local.put(digest, entry.record)
        return entry.record

    async def authenticate(self, key: str) -> KeyRecord:
        """The record of a key.

        Raises:
            NotAuthenticatedError: the key opens nothing.
            NotAllowedError: `device_inactive`, the device or its user is switched off.
            StoreUnavailableError: neither cache nor registry can tell.
        """
        if len(key) != DEVICE_KEY_LENGTH or not key.startswith(DEVICE_KEY_PREFIX):
            raise _opens_nothing()
        digest = sha256(key.encode("latin-1", "replace")).hexdigest()
        record = self._local.get(digest) or await self._look_up(digest)
        if record is None or _expired(record, self._now()):
            raise _opens_nothing()
        if not record.active:
            raise NotAllowedError(
                "This device, or the account that owns it, is not active.", code="device_inactive"
            )
        return record

    async def _look_up(self, digest: str) -> KeyRecord | None:
        if self._unknown.get(digest) or self._revoked.get(digest):
            return None
        epoch, forgets = self._epoch.current, self._forgets
        record = await self._lookups.run(digest, lambda: self._ask_stores(digest))
        if self._revoked.get(digest):
            return None  # revoked while we asked
        if record is None:
            self._unknown.put(digest, True)
        elif (epoch, forgets) == (self._epoch.current, self._forgets):
            (self._unheard if epoch is None else self._local).put(digest, record)
        return record

    async def warm(self, digest: str) -> None:
        """Have the cache know a key, for whoever asks for it next.

        Raises:
            StoreUnavailableError: the cache does not know it, and the registry is away.
        """
        await self._lookups.run(digest, lambda: self._ask_stores(digest))

    async def _ask_stores(self, digest: str) -> KeyRecord | None:
        try:
            with self._cache_latency.timed():
                entry = await self._cache.key(digest)
        except StoreUnavailableError:
            entry = None
        if entry is not None:
            return entry.record
        epoch = self._epoch.current
        now = datetime.fromtimestamp(self._now(), UTC)
        with self._registry_latency.timed():
            record = await self._registry.key_record(digest, now)
        if epoch == self._epoch.current:
            try:
                await self._cache.fill_key(digest, KeyEntry(record))
            except StoreUnavailableError:
                _log.debug("key_not_cached")
        return record

    async def revoke(self, digests: list[str]) -> None:
        """Refuse keys here at once and, through the cache, everywhere within a second.

        Call it after the registry has revoked them.
        """
        for digest in digests:
            self._revoke_here(digest)
        try:
            await self._cache.revoke_keys(digests)
            await self._publish(_REVOKE, digests)
        except StoreUnavailableError:
            self._epoch.doubt()
            _log.warning("revocation_not_published", keys=len(digests))

    async def forget(self, digests: list[str]) -> None:
        """Look keys up again whose record has changed (an end to their life, say), everywhere.

        Call it after the registry has changed them.
        """
        for digest in digests:
            self._forget_here(digest)
        try:
            await self._cache.forget_keys(digests)
            await self._publish(_FORGET, digests)
        except StoreUnavailableError:
            self._epoch.doubt()
            _log.warning("keys_not_forgotten", keys=len(digests))

    async def _publish(self, verb: str, digests: list[str]) -> None:
        for begin in range(0, len(digests), _DIGESTS_A_MESSAGE):
            words = [verb, *digests[begin : begin + _DIGESTS_A_MESSAGE]]
            await self._cache.publish(REVOCATIONS, " ".join(words).encode("ascii"))

    def _revoke_here(self, digest: str) -> None:
        self._revoked.put(digest, True)
        self._forget_here(digest)

    def _forget_here(self, digest: str) -> None:
        self._forgets += 1  # what a look-up that is under way finds may be old
        self._heard.pop(digest)
        self._unheard.pop(digest)

    def forget_all(self) -> None:
        """Believe nothing that was looked up so far: the cache epoch has changed."""
        self._heard.clear()
        self._unheard.clear()
        self._unknown.clear()

    async def listen(self, stop: asyncio.Event) -> None:
        """Follow the revocation channel until `stop`; a supervised worker runs this."""
        async with self._cache.subscribe(REVOCATIONS) as subscription:
            self._listening = True
            try:
                ended = asyncio.ensure_future(stop.wait())
                while not stop.is_set():
                    message = asyncio.ensure_future(subscription.next())
                    await asyncio.wait({ended, message}, return_when=asyncio.FIRST_COMPLETED)
                    if not message.done():
                        message.cancel()
                        break
                    self._hear(message.result().payload.decode("ascii"))
            finally:
                self._listening = False
                self._heard.clear()

    def _hear(self, message: str) -> None:
        verb, *digests = message.split()
        for digest in digests:
            if verb == _REVOKE:
                self._revoke_here(digest)
            else:
                self._forget_here(digest)


def _expired(record: KeyRecord, now_s: float) -> bool:
    return record.expires_ms is not None and record.expires_ms <= now_s * 1000


def _opens_nothing() -> NotAuthenticatedError:
    return NotAuthenticatedError("This API key opens nothing.", code="invalid_api_key")
