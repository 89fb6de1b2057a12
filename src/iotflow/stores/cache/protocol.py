"""The cache role: key look-ups, latest values, online flags, counters, messages.

Rules that hold for every adapter (tests/contract/test_cache_store.py):

* A latest entry is a hit only if it is complete: made so by `fill_latest`. A
  submission updates what is there and never makes a partial entry look whole.
* Of two values of one measurement the one with the higher (timestamp_ms, written_us) stays.
* `drop_latest` (a range delete, a doubtful write) ends an entry and raises its generation; a
  fill begun under an older generation is thrown away, and a submission written before the
  drop but recorded after it does not enter the entry.
* A revocation leaves a tombstone that no fill overwrites.
* Everything has a bound and a time to live.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from iotflow.domain.devices import KeyRecord
from iotflow.domain.points import LatestPoint, Submission
from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.lifecycle import Store


class KeyEntry(msgspec.Struct, frozen=True, gc=False):
    """What the cache knows of a key: its record, or that it opens nothing.

    `record` None stands for a key that is unknown or revoked.
    """

    record: KeyRecord | None


class Hit(msgspec.Struct, frozen=True, gc=False):
    """Something to count: `cost` units for `subject` in windows of `window_s`.

    A device's subjects end in `:device:{device_id}`; by that `forget_device` knows them.
    """

    subject: str
    window_s: int
    cost: int


class WindowCount(msgspec.Struct, frozen=True, gc=False):
    """A two-bucket sliding window after counting, by the cache's clock.

    `current` counts the bucket that began `elapsed_s` ago, `previous` the one before it.
    """

    previous: int
    current: int
    elapsed_s: float

    def used(self, window_s: int) -> float:
        """The sliding estimate: the previous bucket weighs what of it the window still covers."""
        return self.previous * max(0.0, 1 - self.elapsed_s / window_s) + self.current


class LogCount(msgspec.Struct, frozen=True, gc=False):
    """An exact sliding log: the entries in the window, and when the oldest leaves it."""

    count: int
    oldest_leaves_in_s: float


class Message(msgspec.Struct, frozen=True, gc=False):
    channel: str
    payload: bytes


Work = Callable[[asyncio.Event], Awaitable[None]]
"""Runs until the event is set, and returns soon after."""


class Subscription(Protocol):
    """A bounded stream of messages. A slow reader loses the oldest, and `lost` counts them."""

    @property
    def lost(self) -> int: ...

    async def next(self) -> Message:
        """Wait for the next message."""
        ...


class Epoch(Protocol):
    """The age of what may be believed, shared by all replicas through the registry.

    A cache that was away may hold what is no longer true: a tombstone or a drop did not reach
    it, or it came back with old data. Then the epoch is raised, and what was cached in an older
    one is a miss, on every replica within a second. Entries carry the epoch that was current
    when the look-up behind them began. (docs/decisions/0008)
    """

    @property
    def current(self) -> int | None:
        """None while nothing that is cached may be believed."""
        ...

    def doubt(self) -> None:
        """Raise the epoch, soon; here nothing is believed from now on. Never waits."""
        ...


class FixedEpoch:
    """The epoch of a cache that lives and dies with its process: it is never away."""

    current: int | None = 1

    def doubt(self) -> None:
        """There is nothing to doubt."""


class CacheStore(Store, Protocol):
    """Every method may raise StoreUnavailableError; callers go on without the cache."""

    counters: CacheCounters

    @property
    def hears(self) -> bool:
        """Whether messages that other replicas publish surely arrive here now."""
        ...

    @property
    def is_in_process(self) -> bool:
        """Whether it is a part of this process, and so answers `key_at_once`."""
        ...

    @property
    def shares_counts(self) -> bool:
        """Whether hits are counted here for all processes.

        Where not, nobody but the limiter of this process could learn from the counts, and it
        keeps its own: the hits of `record` and `count` are ignored and the answer is empty.
        """
        ...

    def workers(self) -> Mapping[str, Work]:
        """What must run in the background while the cache is used, by name; maybe nothing."""
        ...

    async def key(self, digest: str) -> KeyEntry | None:
        """What is known of a key, or None where nothing is. A digest is SHA-256 in hex."""
        ...

    def key_at_once(self, digest: str) -> KeyEntry | None:
        """`key` without waiting. None also where nobody can tell: `is_in_process` is false, or the
        cache is closed. A miss is not counted, as `key` is asked next."""
        ...

    async def fill_key(self, digest: str, entry: KeyEntry) -> None:
        """Remember a key unless something (a tombstone above all) is there already.

        An entry without a record lives briefly, so that a new key is not refused for long.
        """
        ...

    async def revoke_keys(self, digests: Collection[str]) -> None:
        """Put tombstones, which refuse the keys until no older fill can be under way."""
        ...

    async def forget_keys(self, digests: Collection[str]) -> None:
        """Drop entries whose record has changed (a status, say). Tombstones stay."""
        ...

    async def latest(self, device_ids: Sequence[int]) -> Mapping[int, Sequence[LatestPoint]]:
        """Complete entries alone, sorted by measurement; others are missing from the answer."""
        ...

    async def begin_fill(self, device_ids: Sequence[int]) -> Mapping[int, int]:
        """Each device's generation, to be taken before the store is read."""
        ...

    async def fill_latest(
        self, device_id: int, points: Sequence[LatestPoint], generation: int
    ) -> bool:
        """Merge the store's points into the entry and mark it complete.

        Points recorded since the read stay where they are newer. Returns False, and does
        nothing, where the generation has moved on. No points make a complete, empty entry.
        """
        ...

    async def drop_latest(self, device_id: int, written_us: int) -> None:
        """End the entry; submissions marked below `written_us` are not recorded any more."""
        ...

    async def record(self, submission: Submission, hits: Sequence[Hit]) -> list[WindowCount]:
        """After a durable write: latest values, the online flag, and the hits, in one go.

        Returns the counts in the order of `hits`, if they are shared.
        """
        ...

    async def mark_online(self, device_id: int) -> None:
        """Set the online flag (a heartbeat)."""
        ...

    async def online(self, device_ids: Sequence[int]) -> set[int]:
        """Which of the devices have been heard of within the flag's time to live."""
        ...

    async def forget_device(self, device_id: int) -> None:
        """Drop everything of a deleted device, counters included."""
        ...

    async def count(self, hits: Sequence[Hit]) -> list[WindowCount]:
        """Count in two-bucket sliding windows: cheap, at most 1.5 times the limit in the worst.

        Returns the counts in the order of `hits`, if they are shared.
        """
        ...

    async def log(self, hit: Hit, limit: int) -> LogCount:
        """Count in an exact sliding log, unless it already holds `limit` entries.

        A cost of 0 only looks. `limit` bounds the log's memory.
        """
        ...

    async def publish(self, channel: str, payload: bytes) -> None:
        """Send to every subscriber of a channel, on every replica."""
        ...

    def subscribe(self, *channels: str) -> AbstractAsyncContextManager[Subscription]:
        """Messages of the channels from now on."""
        ...
