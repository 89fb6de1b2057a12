"""The contract of the events role, on every adapter (stores/events/protocol.py)."""

import asyncio
from collections.abc import Sequence
from itertools import count
from secrets import randbits, token_hex
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iotflow.domain.events import Event
from iotflow.domain.times import MAX_TIMESTAMP_MS, TimeRange
from iotflow.errors import OverloadedError, StoreUnavailableError
from iotflow.stores.events.protocol import EventPageKey, EventQuery, EventStore
from tests.contract.events_adapters import EventsHarness

_ids = count(randbits(40) + 1)
T0 = 1_767_225_600_000
EVER = TimeRange(0, MAX_TIMESTAMP_MS + 1)


@pytest.fixture
def store(events: EventsHarness) -> EventStore:
    return events.store


@pytest.fixture
def user() -> int:
    return next(_ids)


@pytest.fixture
def device() -> int:
    return next(_ids)


def event(
    at_ms: int = 0,
    *,
    user: int | None = None,
    device: int | None = None,
    kind: str = "telemetry.submitted",
    id: str | None = None,
    **details: Any,
) -> Event:
    """An event at T0 + `at_ms`, with an id of its own."""
    return Event(id or token_hex(8), kind, T0 + at_ms, user, device, details)


def newest_first(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda e: (e.timestamp_ms, e.id), reverse=True)


async def append_in_turn(store: EventStore, events: Sequence[Event]) -> int:
    """As the service does it: what was refused was not begun."""
    while True:
        try:
            return await store.append(events)
        except OverloadedError:
            await asyncio.sleep(0.05)


async def read(
    store: EventStore, *, page: int = 1_000, within: TimeRange = EVER, **filters: Any
) -> list[Event]:
    """All events, read page by page."""
    found: list[Event] = []
    after: EventPageKey | None = None
    while True:
        items, more = await store.query(EventQuery(within, page, after=after, **filters))
        assert len(items) <= page
        found += items
        if not more:
            return found
        assert len(items) == page
        after = EventPageKey(found[-1].timestamp_ms, found[-1].id)


def calls(store: EventStore) -> list[Any]:
    """A call of every method."""
    return [
        store.ping(),
        store.append([event()]),
        store.append([]),
        store.query(EventQuery(EVER, 1)),
        store.delete_device(1),
        store.delete_user(1),
    ]


class TestLifecycle:
    async def test_ping_answers_and_the_backend_is_named(self, store: EventStore) -> None:
        await store.ping()
        assert store.backend

    async def test_nothing_works_before_it_is_opened(self, events: EventsHarness) -> None:
        for call in calls(events.unopened()):
            with pytest.raises(StoreUnavailableError):
                await call

    async def test_nothing_works_after_it_was_closed(self, events: EventsHarness) -> None:
        store = events.unopened()
        await store.open()
        await store.ping()
        await store.close()
        for call in calls(store):
            with pytest.raises(StoreUnavailableError):
                await call

    async def test_several_may_open_at_once_and_see_the_same(
        self, events: EventsHarness, user: int
    ) -> None:
        written = event(user=user)
        await events.store.append([written])
        others = [events.unopened() for _ in range(3)]
        await asyncio.gather(*(other.open() for other in others))
        try:
            assert [await read(other, user_id=user) for other in others] == [[written]] * 3
        finally:
            for other in others:
                await other.close()


class TestAppend:
    async def test_an_event_comes_back_whole(
        self, store: EventStore, user: int, device: int
    ) -> None:
        written = event(5, user=user, device=device, points=3, measurements=["a", "b"])
        assert await store.append([written]) == 1
        assert await read(store, user_id=user) == [written]

    async def test_user_and_device_may_be_missing(self, store: EventStore) -> None:
        kind = token_hex(8)
        written = event(5, kind=kind)
        await store.append([written])
        (found,) = await read(store, event_type=kind)
        assert found == written
        assert (found.user_id, found.device_id) == (None, None)

    async def test_nothing_is_appended_to_nothing(self, store: EventStore) -> None:
        assert await store.append([]) == 0

    async def test_a_known_id_changes_nothing(self, store: EventStore, user: int) -> None:
        first = event(1, user=user, what="first")
        again = event(2, user=user, id=first.id, kind="other", what="again")
        assert await store.append([first]) == 1
        assert await store.append([again]) == 0
        assert await store.append([first]) == 0
        assert await read(store, user_id=user) == [first]

    async def test_twice_in_one_batch_it_is_kept_once(self, store: EventStore, user: int) -> None:
        first, other = event(1, user=user, what="first"), event(1, user=user)
        again = event(2, user=user, id=first.id, what="again")
        assert await store.append([first, other, again, first]) == 2
        assert await read(store, user_id=user) == newest_first([first, other])

    async def test_only_new_ones_are_counted(self, store: EventStore, user: int) -> None:
        batch = [event(at, user=user) for at in range(10)]
        assert await store.append(batch[:6]) == 6
        assert await store.append(batch) == 4
        assert await read(store, user_id=user) == newest_first(batch)

    @pytest.mark.parametrize("size", [500, 501, 1_000, 1_001, 5_000])
    async def test_large_batches(self, store: EventStore, user: int, size: int) -> None:
        batch = [event(at // 3, user=user, number=at) for at in range(size)]
        assert await store.append(batch) == size
        assert await store.append(batch) == 0
        assert await read(store, user_id=user) == newest_first(batch)

    async def test_batches_that_overlap_at_the_same_time(
        self, store: EventStore, user: int
    ) -> None:
        batch = [event(at, user=user) for at in range(300)]
        parts = [batch[begin : begin + 150] for begin in (0, 75, 150)] + [batch[::-1]] * 3
        new = await asyncio.gather(*(store.append(part) for part in parts))
        assert sum(new) == 300
        assert await read(store, user_id=user) == newest_first(batch)

    DETAILS: tuple[dict[str, Any], ...] = (
        {},
        {"": "", " ": " ", "a.b": 1, "$set": {"$gt": 1}, "key with 'quotes\"": "\\"},
        {"text": "Grüße, 温度 🌡 \u202e\n\t", "ключ": ["é", "e\u0301"]},
        {"nul": "a\0b"},
        {"numbers": [0, -1, 0.1, 1e308, 5e-324, 2**53 + 1, 2**63 - 1, -(2**63)]},
        {"flags": [True, False, None], "one": 1, "one_and_true": [1, True]},
        {"nested": {"a": [{"b": [[[{"c": {}}]]]}, []]}},
        {"long": "x" * 100_000, "many": list(range(1_000))},
    )

    @pytest.mark.parametrize("details", DETAILS, ids=lambda details: ascii(details)[:30])
    async def test_odd_details_survive(
        self, store: EventStore, user: int, details: dict[str, Any]
    ) -> None:
        await store.append([event(1, user=user, before=1), event(0, user=user, **details)])
        found = (await read(store, user_id=user))[1].details
        assert repr(found) == repr(details)

    async def test_deep_nesting(self, store: EventStore, user: int) -> None:
        nested: dict[str, Any] = {}
        for _ in range(60):
            nested = {"in": nested}
        await store.append([event(user=user, **nested)])
        assert (await read(store, user_id=user))[0].details == nested

    @pytest.mark.parametrize(
        "odd",
        [{"object": object()}, {"bytes": b"x"}, {"nan": float("nan")}, {"inf": float("inf")}],
        ids=lambda odd: next(iter(odd)),
    )
    async def test_what_is_no_json_is_refused_as_such(
        self, store: EventStore, user: int, odd: dict[str, Any]
    ) -> None:
        """Not as a store that is away: whoever waits for that would wait for ever."""
        with pytest.raises((TypeError, ValueError)):
            await store.append([event(user=user), event(user=user, **odd)])
        assert await store.append([event(user=user)]) == 1


class TestQuery:
    async def test_newest_first_then_by_descending_id(self, store: EventStore, user: int) -> None:
        at = {"b": 2, "a": 2, "C": 2, "é": 2, "z": 1, "0": 3, "10": 2, "9": 2}
        prefix = token_hex(6)
        written = [event(when, user=user, id=f"{prefix}{id}") for id, when in at.items()]
        await store.append(written)
        found = await read(store, user_id=user)
        assert [e.id.removeprefix(prefix) for e in found] == [
            "0", "é", "b", "a", "C", "9", "10", "z",
        ]  # fmt: skip

    @pytest.mark.parametrize("page", [1, 2, 3, 5, 29, 30, 31])
    async def test_pages_follow_each_other_over_equal_times(
        self, store: EventStore, user: int, page: int
    ) -> None:
        written = [event(at // 7, user=user) for at in range(30)]
        await store.append(written)
        assert await read(store, user_id=user, page=page) == newest_first(written)

    async def test_a_cursor_need_not_be_an_event_that_is_there(
        self, store: EventStore, user: int
    ) -> None:
        prefix = token_hex(6)
        written = [event(at, user=user, id=f"{prefix}{at}-{id}") for at in (1, 2) for id in "ac"]
        await store.append(written)
        after = EventPageKey(T0 + 2, f"{prefix}2-b")
        items, more = await store.query(EventQuery(EVER, 10, user_id=user, after=after))
        assert [e.id.removeprefix(prefix) for e in items] == ["2-a", "1-c", "1-a"]
        assert not more

    async def test_a_range_includes_its_start_and_not_its_end(
        self, store: EventStore, user: int
    ) -> None:
        await store.append([event(at, user=user) for at in range(6)])
        for start, end in ((1, 3), (0, 6), (2, 2), (5, 100), (6, 100), (-10, 0)):
            within = TimeRange(T0 + start, T0 + end)
            found = await read(store, user_id=user, within=within, page=2)
            expected = [at for at in range(6) if start <= at < end]
            assert [e.timestamp_ms - T0 for e in found] == expected[::-1]

    async def test_the_whole_calendar(self, store: EventStore, user: int) -> None:
        written = [Event(token_hex(8), "t", at, user, None, {}) for at in (0, MAX_TIMESTAMP_MS)]
        await store.append(written)
        assert await read(store, user_id=user) == written[::-1]

    async def test_filters_by_themselves_and_together(self, store: EventStore) -> None:
        users, devices = [next(_ids), next(_ids)], [next(_ids), next(_ids), None]
        kinds = [token_hex(6), token_hex(6)]
        written = [
            event(at, user=user, device=device, kind=kind)
            for at in (1, 2)
            for user in (*users, None)
            for device in devices
            for kind in kinds
        ]
        await store.append(written)
        for user in (*users, None):
            for device in devices:
                for kind in (*kinds, None):
                    if user is device is kind is None:
                        continue
                    expected = [
                        e
                        for e in written
                        if (user is None or e.user_id == user)
                        and (device is None or e.device_id == device)
                        and (kind is None or e.event_type == kind)
                    ]
                    filters = {"user_id": user, "device_id": device, "event_type": kind}
                    assert await read(store, page=4, **filters) == newest_first(expected)

    async def test_without_a_filter_everything_in_the_range(self, store: EventStore) -> None:
        # A time of the far future that no other test and no earlier run has used.
        start_ms = 200_000_000_000_000 + randbits(45)
        written = [
            Event(token_hex(8), kind, start_ms + at, user, device, {})
            for at, (kind, user, device) in enumerate([("a", 1, 2), ("b", None, None), ("c", 3, 4)])
        ]
        await store.append(written)
        within = TimeRange(start_ms, start_ms + 3)
        assert await read(store, within=within, page=2) == newest_first(written)

    async def test_types_are_told_apart_by_case(self, store: EventStore, user: int) -> None:
        await store.append([event(user=user, kind=kind) for kind in ("Alert", "alert", "alert.x")])
        found = await read(store, user_id=user, event_type="alert")
        assert [e.event_type for e in found] == ["alert"]

    async def test_nothing_there(self, store: EventStore, user: int) -> None:
        assert await store.query(EventQuery(EVER, 10, user_id=user)) == ([], False)


class TestDeletes:
    async def test_a_devices_events_go_and_are_counted(
        self, store: EventStore, user: int, device: int
    ) -> None:
        mine = [event(at, user=user, device=device) for at in range(5)]
        others = [event(at, user=user, device=other) for at, other in ((1, next(_ids)), (2, None))]
        await store.append([*mine, *others])
        assert await store.delete_device(device) == 5
        assert await store.delete_device(device) == 0
        assert await read(store, user_id=user) == newest_first(others)

    async def test_a_users_events_go_and_are_counted(
        self, store: EventStore, user: int, device: int
    ) -> None:
        mine = [event(at, user=user, device=device) for at in range(5)] + [event(user=user)]
        others = [
            event(at, user=other, device=device) for at, other in ((1, next(_ids)), (2, None))
        ]
        await store.append([*mine, *others])
        assert await store.delete_user(user) == 6
        assert await store.delete_user(user) == 0
        assert await read(store, device_id=device) == newest_first(others)

    async def test_what_comes_afterwards_stays(self, store: EventStore, device: int) -> None:
        first = event(1, device=device)
        await store.append([first])
        await store.delete_device(device)
        assert await store.append([first]) == 1
        assert await read(store, device_id=device) == [first]

    async def test_many(self, store: EventStore, user: int, device: int) -> None:
        written = [event(at, user=user, device=device) for at in range(12_000)]
        await store.append([*written, event(user=user)])
        assert await store.delete_device(device) == 12_000
        assert len(await read(store, user_id=user)) == 1

    async def test_exactly_as_many_as_fit_into_a_chunk(
        self, store: EventStore, device: int
    ) -> None:
        await store.append([event(at, device=device) for at in range(5_000)])
        assert await store.delete_device(device) == 5_000

    async def test_while_others_append(self, store: EventStore, device: int) -> None:
        other = next(_ids)
        await store.append([event(at, device=device) for at in range(11_000)])
        batches = [[event(at, device=other) for at in range(20)] for _ in range(10)]
        deleted, *new = await asyncio.gather(
            store.delete_device(device), *(append_in_turn(store, batch) for batch in batches)
        )
        assert (deleted, sum(new)) == (11_000, 200)
        assert len(await read(store, device_id=other)) == 200


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    batches=st.lists(
        st.lists(
            st.tuples(st.integers(0, 12), st.integers(0, 4), st.sampled_from("ab")), max_size=8
        ),
        max_size=6,
    ),
    bounds=st.tuples(st.integers(-1, 5), st.integers(-1, 5)),
    kind=st.sampled_from(["a", "b", None]),
    page=st.integers(1, 4),
)
async def test_whatever_is_repeated_the_first_is_kept(
    events: EventsHarness,
    batches: list[list[tuple[int, int, str]]],
    bounds: tuple[int, int],
    kind: str | None,
    page: int,
) -> None:
    user, prefix, kept = next(_ids), token_hex(6), dict[str, Event]()
    for turn, batch in enumerate(batches):
        made = [event(at, user=user, kind=k, id=f"{prefix}{n}", turn=turn) for n, at, k in batch]
        before = len(kept)
        for each in made:
            kept.setdefault(each.id, each)
        assert await events.store.append(made) == len(kept) - before
    within = TimeRange(T0 + min(bounds), T0 + max(bounds))
    found = await read(events.store, user_id=user, event_type=kind, within=within, page=page)
    assert found == newest_first(
        [
            each
            for each in kept.values()
            if within.start_ms <= each.timestamp_ms < within.end_ms
            and kind in (None, each.event_type)
        ]
    )
