"""What the benchmark works out from what it measured."""

from collections.abc import Mapping
from io import StringIO
from typing import Any, cast
from xml.etree import ElementTree

import pytest
from rich.console import Console

from iotflow.cli.bench.curves import Case, Curve, ScaleTable, powers_of_ten
from iotflow.cli.bench.fleet import Fleet
from iotflow.cli.bench.hit_rates import between, hit_rates, parse
from iotflow.cli.bench.lanes import Feed, Lane
from iotflow.cli.bench.markdown import markdown
from iotflow.cli.bench.notes import notes
from iotflow.cli.bench.options import chosen, numbers, words
from iotflow.cli.bench.plan import Latency, Result, TimedRequests, ValidationResult
from iotflow.cli.bench.plot import plot
from iotflow.cli.bench.report import WIDTH, terminal
from iotflow.cli.bench.scale_report import markdown as scale_markdown
from iotflow.cli.bench.scale_report import notes as scale_notes
from iotflow.cli.bench.scale_report import plot as scale_plot
from iotflow.cli.bench.scenarios import ROWS
from iotflow.cli.bench.sections import sections
from iotflow.cli.bench.systems import SYSTEMS, YARDSTICK, System, system
from iotflow.cli.bench.tables import Line, Slice, Table, validation
from iotflow.errors import ConfigurationError

ROW = {row.name: row for row in ROWS}
PROCESSES = ("server", "generator", "postgresql", "cassandra", "redis", "mongodb")


def result(
    rate: float, *, p99: float = 2.0, lag: float | None = None, share: float = 0.2, **changes: Any
) -> Result:
    def latency(p99_ms: float) -> Latency:
        return Latency(10, 1.0, 1.0, 1.5, p99_ms, p99_ms, p99_ms)

    count = int(rate)
    found: dict[str, Any] = {
        "seconds": 1.0,
        "issued": count,
        "answered": count,
        "unanswered": 0,
        "statuses": {201: count},
        "latency": latency(p99),
        "lag": None if lag is None else latency(lag),
        "generator_share": share,
        "generator_rss_bytes": 30_000_000,
    }
    return Result(**found | changes)


def taken(
    closed: Result | None,
    opened: Result | None = None,
    lookups: Mapping[str, tuple[float, float]] | None = None,
) -> Slice:
    main = closed or opened
    assert main is not None
    shares = dict.fromkeys(PROCESSES, 0.5) | {"generator": main.generator_share}
    memory = dict.fromkeys(PROCESSES, 123400000)
    return Slice(closed, opened, 0.000_1, shares, memory, lookups or {})


def lane(of: str, name: str, slices: list[Slice], connections: int = 16) -> Lane:
    feed = Feed(TimedRequests([b"%d"], 1, 10**12, 1))
    return Lane(of, ROW[name], cast(Fleet, None), connections, feed, {}, slices)


def table_of(*lanes: Lane) -> Table:
    return Table.of(lanes, [], {"slices": 2})


def line_of(table: Table, of: str, name: str, connections: int = 16) -> Line:
    return next(
        it for it in table.lines if (it.system, it.name, it.connections) == (of, name, connections)
    )


class TestLines:
    def test_a_ratio_is_the_median_of_neighbouring_slices_at_the_same_connections(self) -> None:
        table = table_of(
            lane(YARDSTICK, "plain", [taken(result(r)) for r in (100, 200, 1000)]),
            lane(YARDSTICK, "plain", [taken(result(10))] * 3, connections=64),
            lane("embedded", "submit", [taken(result(r)) for r in (100, 600, 1500)]),
            lane("embedded", "submit", [taken(result(30))] * 3, connections=64),
        )
        assert line_of(table, "embedded", "submit").ratio == 1.5
        assert line_of(table, "embedded", "submit", 64).ratio == 3.0
        assert line_of(table, "embedded", "submit").points_per_s == 1200

    def test_refusals_are_no_throughput(self) -> None:
        refused = result(100, statuses={201: 40, 503: 60}, unanswered=2)
        table = table_of(lane("embedded", "submit", [taken(refused, refused)]))
        line = line_of(table, "embedded", "submit")
        assert (line.rate, line.failures, line.unanswered) == (40, {503: 120}, 4)
        text = "\n".join(notes(table))
        assert "120 answers were status 503" in text
        assert "4 requests were never answered" in text

    def test_a_row_at_a_fixed_rate_has_an_open_loop_alone(self) -> None:
        slices = [taken(None, result(1000, p99=p99, lag=0.1)) for p99 in (5.0, 7.0, 90.0)]
        line = line_of(table_of(lane("embedded", "steady", slices)), "embedded", "steady")
        assert (line.rate, line.ratio, line.p99) == (None, None, None)
        assert (line.at_rate, line.open_p99) == (1000, 7.0)

    @pytest.mark.parametrize(
        ("rate", "share", "bound"), [(500, 0.2, False), (950, 0.2, True), (500, 0.95, True)]
    )
    def test_a_row_says_that_the_generator_was_the_bottleneck(
        self, rate: float, share: float, bound: bool
    ) -> None:
        table = table_of(
            lane(YARDSTICK, "echo", [taken(result(1000, share=0.99))]),
            lane("embedded", "latest", [taken(result(rate, share=share))]),
        )
        assert line_of(table, "embedded", "latest").generator_bound is bound
        assert not line_of(table, YARDSTICK, "echo").generator_bound
        text = "\n".join(notes(table))
        assert "ceiling, against a raw ASGI echo at 16 connections: 1,000 requests/s" in text
        assert ("bottleneck" in text) is bound
        assert (f"≥{rate:,.0f}" in markdown(table)) is bound

    def test_a_generator_that_sent_late_is_named(self) -> None:
        late = lane("naive", "latest", [taken(result(50), result(25, p99=9.0, lag=8.0))])
        fine = lane("naive", "history", [taken(result(50), result(25, p99=90.0, lag=8.0))])
        (note,) = notes(table_of(late, fine))
        assert note.endswith("naive latest at 16.")

    def test_hits_are_summed_over_slices(self) -> None:
        slices = [
            taken(result(1), lookups={"latest": (90.0, 10.0), "key": (0.0, 0.0)}),
            taken(result(1), lookups={"latest": (0.0, 100.0), "key": (0.0, 0.0)}),
        ]
        line = line_of(table_of(lane("embedded", "latest", slices)), "embedded", "latest")
        assert line.hit_rates == {"latest": 0.45}

    def test_validations_are_medians(self) -> None:
        found = [
            ValidationResult(2.0, count, Latency(count, 1, p, p, p, p, p))
            for count, p in ((100, 1.0), (500, 2.0), (300, 9.0))
        ]
        line = validation("embedded", "cold", 16, found)
        assert (line.rate, line.p50, line.p99) == (150, 2.0, 2.0)


class TestOutput:
    def whole(self) -> Table:
        closed, opened = result(123_456, p99=12_345.67), result(61_728, p99=99_999.99, lag=1.0)
        lookups = dict.fromkeys(("latest", "local_key", "key"), (1000.0, 0.0))
        lanes = [
            lane(
                YARDSTICK if row.is_yardstick else of,
                row.name,
                [taken(None if row.fixed_rate else closed, opened, lookups)],
                connections=1000,
            )
            for of in SYSTEMS
            for row in ROWS
        ]
        slow = ValidationResult(1.0, 1_234_567, Latency(1, 1, 1, 1, 12_345.6789, 1, 1))
        return Table.of(lanes, [validation("configured", "warm", 1000, [slow])], {"slices": 1})

    def test_every_table_fits_a_terminal_of_100_columns(self) -> None:
        for section in sections(self.whole()):
            out = StringIO()
            Console(width=WIDTH, file=out).print(terminal(section))
            text = out.getvalue()
            assert "…" not in text, text
            for heading in section.headings:
                assert heading in text

    def test_the_plot_has_a_bar_for_each_system_and_row(self) -> None:
        root = ElementTree.fromstring(plot(self.whole()))
        bars = [it for it in root.iter("{http://www.w3.org/2000/svg}rect") if it.get("rx")]
        for of in SYSTEMS:
            rows = [row for row in ROWS if not row.is_yardstick and not row.fixed_rate]
            assert len([it for it in bars if it.get("class") == of]) == len(rows)

    def test_markdown_rows_have_as_many_cells_as_headings(self) -> None:
        tables = [it for it in markdown(self.whole()).split("\n\n") if it.startswith("|")]
        assert len(tables) >= 5
        for each in tables:
            assert len({row.count("|") for row in each.splitlines()}) == 1


class TestHitRates:
    METRICS = (
        "# HELP iotflow_cache_lookups_total Look-ups in caches\n"
        "# TYPE iotflow_cache_lookups_total counter\n"
        'iotflow_cache_lookups_total{kind="latest",result="hit"} 85.0\n'
        'iotflow_cache_lookups_total{kind="latest",result="miss"} 15.0\n'
        "# HELP other_total x\n# TYPE other_total counter\n"
        'other_total{kind="latest",result="hit"} 9.0\n'
    )

    def test_are_those_of_what_was_asked_in_between(self) -> None:
        before = parse(self.METRICS)
        assert before == {"latest": (85.0, 15.0)}
        after = {"latest": (95.0, 45.0), "key": (1.0, 0.0)}
        assert hit_rates([between(before, after)]) == {"latest": 0.25, "key": 1.0}


class TestOptions:
    def test_lists_may_be_repeated_or_have_commas(self) -> None:
        assert words(["a, b", "c", "a"]) == ("a", "b", "c")
        assert numbers("--connections", ["64,16", "16"], 100) == (16, 64)
        assert chosen("--rows", ("b", "a"), ("a", "b", "c")) == ("a", "b")
        assert chosen("--rows", (), ("a", "b")) == ("a", "b")

    @pytest.mark.parametrize("given", [[""], ["0"], ["101"], ["x"], ["-1"], ["1.5"], ["²"]])
    def test_what_is_no_number_of_connections_is_refused(self, given: list[str]) -> None:
        with pytest.raises(ConfigurationError, match="--connections"):
            numbers("--connections", given, 100)

    def test_an_unknown_name_is_refused_with_the_known_ones(self) -> None:
        with pytest.raises(ConfigurationError, match=r"no 'd'; choose from a, b"):
            chosen("--rows", ("a", "d"), ("a", "b"))


class TestSystems:
    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for role in ("REGISTRY", "TELEMETRY", "CACHE", "EVENTS"):
            monkeypatch.delenv(f"IOTFLOW_{role}__URL", raising=False)

    @pytest.mark.parametrize("name", ["postgres", "naive"])
    def test_postgres_is_refused_without_its_url(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match=r"postgresql:// URL in IOTFLOW_REGISTRY__URL"):
            system(name)

    def test_postgres_keeps_everything_in_the_registry_s_database(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = "postgresql://u:p@127.0.0.1:1/d"
        monkeypatch.setenv("IOTFLOW_REGISTRY__URL", url)
        found = system("postgres")
        assert found.urls == (url,)
        assert found.settings == {
            "IOTFLOW_REGISTRY__URL": url,
            "IOTFLOW_TELEMETRY__URL": url,
            "IOTFLOW_EVENTS__URL": url,
            "IOTFLOW_CACHE__URL": "none://",
        }

    def test_the_naive_system_has_the_rows_of_the_guide_s_table(self) -> None:
        naive = System("naive", {}, ("postgresql://h/d",))
        rows = {row.name for row in ROWS if naive.has(row)}
        assert rows == {"submit", "steady", "latest", "history", "credentials"}

    def test_what_has_no_cache_has_no_row_without_it(self) -> None:
        has = {name for name in SYSTEMS if System(name, {}, ()).has(ROW["uncached"])}
        assert has == {"embedded", "configured"}

    def test_yardsticks_belong_to_no_system(self) -> None:
        assert not any(System(name, {}, ()).has(ROW["plain"]) for name in SYSTEMS)


class TestCurves:
    def scale_table(self) -> ScaleTable:
        case = Case(1000, lane("embedded", "batch", []), lane(YARDSTICK, "plain", []))
        case.own = [result(50), result(60, statuses={201: 50, 503: 10}), result(90, share=0.5)]
        case.base = [result(100), result(100), result(300)]
        bound = Case(5000, case.lane, case.plain, [result(9, share=0.97)], [result(3)])
        marks = [case.mark(), bound.mark()]
        return ScaleTable.of(
            "embedded", 20_000.0, [Curve("batches", "batch", "records", marks)], {}
        )

    def test_a_mark_is_a_ratio_of_neighbouring_slices(self) -> None:
        first, second = self.scale_table().curves[0].marks
        assert (first.rate, first.points_per_s, first.ratio) == (50, 5000, 0.5)
        assert (first.failures, first.generator_bound) == ({503: 10}, False)
        assert (second.ratio, second.generator_bound) == (3.0, True)

    def test_notes_tell_the_ceiling_and_what_went_wrong(self) -> None:
        ceiling, failed, bound = scale_notes(self.scale_table())
        assert "20,000 requests/s" in ceiling
        assert failed == "batches at 1,000: 10 answers were status 503."
        assert bound.startswith("batches at 5,000: the generator was the bottleneck")

    def test_outputs_hold_every_mark(self) -> None:
        table = self.scale_table()
        root = ElementTree.fromstring(scale_plot(table))
        assert len(list(root.iter("{http://www.w3.org/2000/svg}circle"))) == 2
        assert "| 1,000 | 50 | 5,000 | 0.500 | 1.00 | 2.00 |" in scale_markdown(table)

    @pytest.mark.parametrize(
        ("least", "most", "levels"),
        [(100, 100_000, [100, 1000, 10_000, 100_000]), (100, 5000, [100, 1000]), (100, 7, [7])],
    )
    def test_levels(self, least: int, most: int, levels: list[int]) -> None:
        assert powers_of_ten(least, most) == levels


def test_lanes_that_share_a_feed_take_no_time_twice() -> None:
    feed = Feed(TimedRequests([b"a %d", b"b %d"], 1, 1000, 10))
    feed.moved_on(3)
    assert cast(TimedRequests, feed.requests).first_ms == 1020
