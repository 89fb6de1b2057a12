"""Latest values by device, and what is recorded together with them."""

from collections.abc import Mapping, Sequence
from secrets import randbits
from typing import Any

from iotflow.domain.points import LatestPoint, Submission
from iotflow.stores.cache.counters import CacheCounters
from iotflow.stores.cache.protocol import Epoch, Hit, WindowCount
from iotflow.stores.cache.redis import codec, scripts
from iotflow.stores.cache.redis.calls import Call, Calls, run
from iotflow.stores.cache.redis.counting import Counting
from iotflow.stores.cache.redis.doubts import Doubts
from iotflow.stores.cache.redis.keys import milliseconds
from iotflow.stores.cache.ttls import CacheTtls

_NO_TICKET = 0


class LatestEntries:
    """Entries are hits where they are complete, of the current epoch, and not in doubt here."""

    def __init__(
        self,
        calls: Calls,
        ttls: CacheTtls,
        epoch: Epoch,
        doubts: Doubts,
        counters: CacheCounters,
    ) -> None:
        self._calls = calls
        self._epoch = epoch
        self._doubts = doubts
        self._counters = counters
        self._counting = Counting(calls)
        self._latest_ms = milliseconds(ttls.latest_s)
        self._longest_ms = milliseconds(max(ttls.latest_s, ttls.latest_max_s))
        self._guard_ms = milliseconds(ttls.drop_guard_s)
        self._online_ms = milliseconds(ttls.online_s)

    async def look(self, device_ids: Sequence[int]) -> Mapping[int, Sequence[LatestPoint]]:
        found: dict[int, Sequence[LatestPoint]] = {}
        if self._epoch.current is not None:
            keys = [codec.latest_key(device_id) for device_id in device_ids]
            calls = [Call(key, ("HGETALL", key)) for key in keys]
            replies = await self._calls.all(calls, again=True)
            epoch = self._epoch_now()
            for device_id, flat in zip(device_ids, replies, strict=True):
                if epoch is None or device_id in self._doubts:
                    continue
                points = self._decoded(device_id, flat, epoch)
                if points is not None:
                    found[device_id] = points
        self._counters.latest_hits += len(found)
        self._counters.latest_misses += len(device_ids) - len(found)
        return found

    def _decoded(
        self, device_id: int, flat: Sequence[bytes], epoch: int
    ) -> Sequence[LatestPoint] | None:
        try:
            return codec.decode_latest(flat, epoch)
        except ValueError:
            self._doubts.add(device_id)  # so it is removed before it is filled again
            return None

    def _epoch_now(self) -> int | None:
        """Asked anew after waiting: it is the time of the answer that counts."""
        return self._epoch.current

    async def begin_fill(self, device_ids: Sequence[int]) -> Mapping[int, int]:
        epoch = self._epoch.current
        tickets = dict.fromkeys(device_ids, _NO_TICKET)
        if epoch is not None:
            fillable = [device_id for device_id in tickets if device_id not in self._doubts]
            replies = await self._calls.all([self._begin(each, epoch) for each in fillable])
            tickets.update(zip(fillable, map(int, replies), strict=True))
        return tickets

    def _begin(self, device_id: int, epoch: int) -> Call:
        keys, ticket = [codec.latest_key(device_id)], randbits(62) + 1
        return run(scripts.BEGIN_FILL, keys, ticket, epoch, self._latest_ms)

    async def fill(self, device_id: int, points: Sequence[LatestPoint], ticket: int) -> bool:
        if ticket == _NO_TICKET or self._epoch.current is None or device_id in self._doubts:
            return False
        keys = [codec.latest_key(device_id)]
        encoded = codec.encode_points(points)
        call = run(scripts.FILL, keys, ticket, self._latest_ms, self._longest_ms, *encoded)
        return await self._calls.one(call) == 1

    async def record(self, submission: Submission, hits: Sequence[Hit]) -> list[WindowCount]:
        device_id = submission.device_id
        suffix = f":device:{device_id}"
        if all(hit.subject.endswith(suffix) for hit in hits):
            reply = await self._calls.one(self._record(submission, hits))
            return codec.counts(reply, hits) if hits else []
        # Other subjects' counters lie in other slots.
        counts = await self._counting.count(hits)
        await self._calls.one(self._record(submission, ()))
        return counts

    def _record(self, submission: Submission, hits: Sequence[Hit]) -> Call:
        device_id = submission.device_id
        keys = [
            codec.latest_key(device_id),
            codec.guard_key(device_id),
            codec.online_key(device_id),
            codec.device_counts_key(device_id),
        ]
        points = codec.encode_submission(submission)
        args: list[Any] = [submission.written_us, self._online_ms, self._latest_ms]
        counted = [part for hit in hits for part in (codec.counter(hit)[1], hit.window_s, hit.cost)]
        return run(scripts.RECORD, keys, *args, len(points) + 4, *points, *counted)

    async def drop(self, device_id: int, written_us: int) -> None:
        """End the entry; with a mark of 0 nothing is kept off."""
        keys = [codec.latest_key(device_id), codec.guard_key(device_id)]
        await self._calls.one(run(scripts.DROP, keys, written_us, self._guard_ms))

    async def mark_online(self, device_id: int) -> None:
        key = codec.online_key(device_id)
        await self._calls.one(Call(key, ("SET", key, "1", "PX", self._online_ms)))

    async def online(self, device_ids: Sequence[int]) -> set[int]:
        keys = [codec.online_key(device_id) for device_id in device_ids]
        calls = [Call(key, ("EXISTS", key)) for key in keys]
        replies = await self._calls.all(calls, again=True)
        return {device_id for device_id, is_set in zip(device_ids, replies, strict=True) if is_set}

    async def forget(self, device_id: int) -> None:
        logs = codec.device_logs_key(device_id)
        held = await self._calls.one(Call(logs, ("SMEMBERS", logs)), again=True)
        keys = [
            codec.latest_key(device_id),
            codec.online_key(device_id),
            codec.device_counts_key(device_id),
            logs,
            *[key.decode() for key in held],
        ]
        await self._calls.one(Call(keys[0], ("UNLINK", *keys)))
