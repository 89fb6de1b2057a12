"""The supervisor: what crashes is restarted and seen, and a stop has a bound."""

import asyncio
from collections.abc import Callable

import pytest

from iotflow.pipeline.backoff import Backoff, pause
from iotflow.pipeline.supervisor import Supervisor, WorkerState, WorkerStatus


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(5_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it did not come to that")


class Worker:
    """Runs until it is stopped; raises what it is given, one error a start."""

    def __init__(self, *errors: BaseException | None) -> None:
        self.starts = 0
        self.ended = 0
        self._errors = list(errors)

    async def __call__(self, stop: asyncio.Event) -> None:
        self.starts += 1
        if self._errors:
            error = self._errors.pop(0)
            await asyncio.sleep(0)
            if error is None:
                return
            raise error
        await stop.wait()
        self.ended += 1


async def crash_at_stop(stop: asyncio.Event) -> None:
    await stop.wait()
    raise KeyError("secret payload")


async def deaf(stop: asyncio.Event) -> None:
    await asyncio.Event().wait()


def quick(**options: float) -> Supervisor:
    return Supervisor(**({"first_delay_s": 0.001, "delay_cap_s": 0.004} | options))


class TestRunning:
    async def test_workers_run_until_they_are_stopped(self) -> None:
        supervisor, one, two = quick(), Worker(), Worker()
        supervisor.add("one", one)
        supervisor.add("two", two)
        starting = WorkerStatus(WorkerState.STARTING, 0, None)
        assert supervisor.states() == {"one": starting, "two": starting}
        supervisor.start()
        await until(lambda: one.starts == two.starts == 1)
        running = WorkerStatus(WorkerState.RUNNING, 0, None)
        assert supervisor.states() == {"one": running, "two": running}
        report = await supervisor.stop(5)
        assert report.is_clean
        assert (one.ended, two.ended) == (1, 1)
        stopped = WorkerStatus(WorkerState.STOPPED, 0, None)
        assert supervisor.states() == {"one": stopped, "two": stopped}

    async def test_without_workers_and_without_a_start_it_stops(self) -> None:
        assert (await quick().stop(1)).is_clean
        supervisor = quick()
        supervisor.add("never started", Worker())
        assert (await supervisor.stop(1)).is_clean

    async def test_names_are_unique_and_given_before_the_start(self) -> None:
        supervisor = quick()
        supervisor.add("one", Worker())
        with pytest.raises(RuntimeError, match="one"):
            supervisor.add("one", Worker())
        supervisor.start()
        with pytest.raises(RuntimeError, match="two"):
            supervisor.add("two", Worker())
        with pytest.raises(RuntimeError, match="started"):
            supervisor.start()
        await supervisor.stop(5)

    async def test_tasks_bear_the_names(self) -> None:
        supervisor, names = quick(), list[str]()

        async def tell(stop: asyncio.Event) -> None:
            task = asyncio.current_task()
            assert task is not None
            names.append(task.get_name())
            await stop.wait()

        supervisor.add("event_log", tell)
        supervisor.start()
        await until(lambda: bool(names))
        await supervisor.stop(5)
        assert names == ["event_log"]


class TestCrashes:
    async def test_a_worker_that_crashes_is_started_again_and_its_crash_seen(self) -> None:
        supervisor, worker = quick(), Worker(ValueError("secret payload"), KeyError("x"))
        supervisor.add("worker", worker)
        supervisor.start()
        await until(lambda: worker.starts == 3)
        status = supervisor.states()["worker"]
        assert status == WorkerStatus(WorkerState.RUNNING, 2, "KeyError")
        assert "secret" not in repr(status)
        assert (await supervisor.stop(5)).is_clean

    async def test_one_that_returns_before_it_was_asked_to_has_failed(self) -> None:
        supervisor, worker = quick(), Worker(None)
        supervisor.add("worker", worker)
        supervisor.start()
        await until(lambda: worker.starts == 2)
        assert supervisor.states()["worker"].last_error == "ReturnedEarlyError"
        await supervisor.stop(5)

    async def test_so_has_one_that_waited_for_something_cancelled(self) -> None:
        supervisor, worker = quick(), Worker(asyncio.CancelledError())
        supervisor.add("worker", worker)
        supervisor.start()
        await until(lambda: worker.starts == 2)
        assert supervisor.states()["worker"].last_error == "CancelledError"
        assert (await supervisor.stop(5)).is_clean

    async def test_the_others_go_on(self) -> None:
        supervisor, crashing, healthy = quick(), Worker(*[ValueError()] * 5), Worker()
        supervisor.add("crashing", crashing)
        supervisor.add("healthy", healthy)
        supervisor.start()
        await until(lambda: crashing.starts == 6)
        assert healthy.starts == 1
        await supervisor.stop(5)

    async def test_between_starts_it_backs_off_visibly(self) -> None:
        supervisor, worker = quick(first_delay_s=3_600.0), Worker(ValueError())
        supervisor.add("worker", worker)
        supervisor.start()
        await until(lambda: supervisor.states()["worker"].state is WorkerState.BACKING_OFF)
        assert supervisor.states()["worker"] == WorkerStatus(
            WorkerState.BACKING_OFF, 1, "ValueError"
        )
        assert worker.starts == 1
        report = await asyncio.wait_for(supervisor.stop(5), 5)  # the delay does not hold it up
        assert report.is_clean

    @pytest.mark.parametrize("ran_s", [0.0, 59.0, 60.0])
    async def test_delays_double_until_a_worker_was_healthy(
        self, ran_s: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        delays: list[float] = []

        async def noted(stop: asyncio.Event, delay_s: float) -> None:
            delays.append(delay_s)

        monkeypatch.setattr("iotflow.pipeline.supervisor.pause", noted)
        clock, worker = [0.0], Worker(*[ValueError()] * 6)

        async def run(stop: asyncio.Event) -> None:
            if worker.starts == 4:
                clock[0] += ran_s
            await worker(stop)

        supervisor = Supervisor(
            first_delay_s=1.0, delay_cap_s=4.0, healthy_after_s=60.0, monotonic=lambda: clock[0]
        )
        supervisor.add("worker", run)
        supervisor.start()
        await until(lambda: worker.starts == 7)
        await supervisor.stop(5)
        assert delays == [1.0, 2.0, 4.0, 4.0, *([1.0, 2.0] if ran_s >= 60 else [4.0, 4.0])]


class TestStopping:
    async def test_one_that_will_not_end_is_cancelled_and_named(self) -> None:
        supervisor, worker = quick(), Worker()
        supervisor.add("deaf", deaf)
        supervisor.add("good", worker)
        supervisor.start()
        await until(lambda: worker.starts == 1)
        report = await asyncio.wait_for(supervisor.stop(0.01), 5)
        assert report.failed == {"deaf": "cancelled"}
        assert not report.is_clean
        assert worker.ended == 1
        assert supervisor.states()["deaf"].state is WorkerState.STOPPED

    async def test_one_that_even_a_cancellation_does_not_end_is_given_up(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("iotflow.pipeline.supervisor._CANCEL_S", 0.01)
        release, tasks = asyncio.Event(), list[asyncio.Task[None] | None]()

        async def stuck(stop: asyncio.Event) -> None:
            tasks.append(asyncio.current_task())
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        supervisor = quick()
        supervisor.add("stuck", stuck)
        supervisor.start()
        await until(lambda: bool(tasks))
        report = await asyncio.wait_for(supervisor.stop(0.01), 5)
        assert report.failed == {"stuck": "stuck"}
        release.set()
        assert tasks[0] is not None
        await asyncio.wait((tasks[0],), timeout=5)

    async def test_one_that_fails_while_it_drains_is_named(self) -> None:
        supervisor = quick()
        supervisor.add("crashing", crash_at_stop)
        supervisor.start()
        await until(lambda: supervisor.states()["crashing"].state is WorkerState.RUNNING)
        report = await supervisor.stop(5)
        assert report.failed == {"crashing": "KeyError"}
        assert supervisor.states()["crashing"].restarts == 0

    async def test_one_that_drains_in_time_is_waited_for(self) -> None:
        drained: list[bool] = []

        async def slow(stop: asyncio.Event) -> None:
            await stop.wait()
            await asyncio.sleep(0.02)
            drained.append(True)

        supervisor = quick()
        supervisor.add("slow", slow)
        supervisor.start()
        await until(lambda: supervisor.states()["slow"].state is WorkerState.RUNNING)
        assert (await supervisor.stop(5)).is_clean
        assert drained == [True]

    async def test_a_stop_that_is_cancelled_cancels_the_workers(self) -> None:
        supervisor = quick()
        supervisor.add("deaf", deaf)
        supervisor.start()
        await until(lambda: supervisor.states()["deaf"].state is WorkerState.RUNNING)
        stopping = asyncio.create_task(supervisor.stop(3_600))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait((stopping,), timeout=5)
        assert stopping.cancelled()
        assert supervisor.states()["deaf"].state is WorkerState.STOPPED


class TestBackoff:
    def test_delays_double_up_to_the_cap_and_begin_again(self) -> None:
        backoff = Backoff(0.5, 3.0)
        assert [backoff.next_s() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
        backoff.reset()
        assert backoff.next_s() == 0.5

    async def test_a_pause_ends_with_the_signal_or_its_time(self) -> None:
        stop = asyncio.Event()
        await asyncio.wait_for(pause(stop, 0.001), 5)
        waiting = asyncio.create_task(pause(stop, 3_600))
        await asyncio.sleep(0)
        assert not waiting.done()
        stop.set()
        await asyncio.wait_for(waiting, 5)

    async def test_once_stopped_pauses_are_waited_out(self) -> None:
        stop = asyncio.Event()
        stop.set()
        waiting = asyncio.create_task(pause(stop, 0.02))
        await asyncio.sleep(0.005)
        assert not waiting.done()
        await asyncio.wait_for(waiting, 5)
