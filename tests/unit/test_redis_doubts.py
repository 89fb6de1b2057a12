"""Devices in doubt."""

from iotflow.stores.cache.redis.doubts import Doubts


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_doubt_is_settled_unless_there_was_another_meanwhile() -> None:
    doubts = Doubts(10, lambda: None, Clock())
    doubts.add(1)
    doubts.add(2)
    repaired = doubts.oldest(10)
    doubts.add(2)
    doubts.settle(repaired)
    assert 1 not in doubts
    assert 2 in doubts
    doubts.settle(doubts.oldest(10))
    assert len(doubts) == 0


def test_it_is_as_old_as_its_first_doubt_and_keeps_the_highest_mark() -> None:
    clock = Clock()
    doubts = Doubts(10, lambda: None, clock)
    doubts.add(1, written_us=5)
    clock.now_s = 1.0
    doubts.add(1, written_us=3)
    (doubt,) = doubts.oldest(1)
    assert (doubt.written_us, doubt.since_s) == (5, 0.0)
    assert doubts.older_than(0.9)
    assert not doubts.older_than(1.0)


def test_there_are_at_most_so_many_and_the_oldest_is_given_up_aloud() -> None:
    given_up: list[bool] = []
    doubts = Doubts(2, lambda: given_up.append(True), Clock())
    for device in (1, 2, 3):
        doubts.add(device)
    assert [doubt.device_id for doubt in doubts.oldest(10)] == [2, 3]
    assert given_up == [True]


def test_of_a_raised_epoch_only_drops_are_still_to_be_told() -> None:
    clock = Clock()
    doubts = Doubts(10, lambda: None, clock)
    doubts.add(1)
    doubts.add(2, written_us=7)
    clock.now_s = 1.0
    doubts.keep_drops()
    assert [(doubt.device_id, doubt.written_us) for doubt in doubts.oldest(10)] == [(2, 7)]
    assert not doubts.older_than(0.5)
