"""The formats of an export keep every value and type; ranges are divided without a gap."""

import csv
import io
import itertools
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iotflow.cli.client import Credentials
from iotflow.cli.export_run import ExportOptions, run_export
from iotflow.cli.exporting.pages import ExportedPoint, split_range
from iotflow.cli.exporting.writers import Format, writer_for
from iotflow.domain.points import Value
from iotflow.domain.times import DAY_MS, parse_rfc3339
from iotflow.errors import ConfigurationError

NOW_MS = 1_767_225_600_000
text = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=50)
values = (
    st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | text
    | st.sampled_from(['a "quote", a comma', "two\nlines\r\nand more", "true", "1", ""])
)
points = st.builds(
    ExportedPoint,
    st.integers(0, 4_000_000_000_000).map(
        lambda ms: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    ),
    st.sampled_from(["temp", "a/b.c-d_e"]),
    values,
    st.none() | st.sampled_from(["°C", "%"]),
)
pages = st.lists(st.lists(points, max_size=20), max_size=4)


def written(kind: Format, given_pages: list[list[ExportedPoint]]) -> bytes:
    file = io.BytesIO()
    writer = writer_for(kind, file)
    for page in given_pages:
        writer.write(page)
    writer.finish()
    return file.getvalue()


def typed(value: Value) -> tuple[type, Value]:
    return type(value), value


@settings(deadline=None)
@given(pages)
def test_ndjson_round_trip(given_pages: list[list[ExportedPoint]]) -> None:
    lines = written("ndjson", given_pages).splitlines()
    found = [msgspec.json.decode(line, type=ExportedPoint) for line in lines]
    expected = list(itertools.chain(*given_pages))
    assert found == expected
    assert [typed(each.value) for each in found] == [typed(each.value) for each in expected]


def true_value(row: dict[str, Any]) -> Value:
    """As the documentation of the format has it."""
    exact = [row[name] for name in ("value_int", "value_bool", "value_text")]
    return next((each for each in exact if each is not None), row["value"])


@settings(deadline=None)
@given(pages)
def test_parquet_round_trip(given_pages: list[list[ExportedPoint]]) -> None:
    table = pq.read_table(io.BytesIO(written("parquet", given_pages)))
    assert str(table.schema.field("timestamp").type) == "timestamp[ms, tz=UTC]"
    rows, expected = table.to_pylist(), list(itertools.chain(*given_pages))
    assert [(row["timestamp"], row["measurement_name"], row["unit"]) for row in rows] == [
        (point.timestamp, point.measurement_name, point.unit) for point in expected
    ]
    assert [typed(true_value(row)) for row in rows] == [typed(each.value) for each in expected]
    assert [row["value"] for row in rows] == [
        None if isinstance(point.value, str) else float(point.value) for point in expected
    ]


@settings(deadline=None)
@given(pages)
def test_csv_has_every_value_as_text(given_pages: list[list[ExportedPoint]]) -> None:
    content = written("csv", given_pages).decode()
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    expected = list(itertools.chain(*given_pages))
    assert [parse_rfc3339(row["timestamp"]) for row in rows] == [
        round(point.timestamp.timestamp() * 1000) for point in expected
    ]
    assert [row["value"] for row in rows] == [
        str(point.value).lower() if isinstance(point.value, bool) else str(point.value)
        for point in expected
    ]
    assert [row["unit"] for row in rows] == [point.unit or "" for point in expected]


class TestRanges:
    @pytest.mark.parametrize(("start", "end"), [("-24h", "now"), ("2025-01-01T00:00:00Z", "-1h")])
    def test_a_short_one_is_one_query_as_written(self, start: str, end: str) -> None:
        assert split_range(start, end, NOW_MS) == [(start, end)]

    @settings(deadline=None)
    @given(st.integers(366, 8000), st.integers(0, 300))
    def test_a_long_one_is_divided_without_gap_or_overlap(self, first: int, last: int) -> None:
        ranges = split_range(f"-{first + last + 1}d", f"-{last}d", NOW_MS)
        edges = [parse_rfc3339(begin) for begin, _ in ranges]
        edges.append(parse_rfc3339(ranges[-1][1]))
        assert [end for _, end in ranges[:-1]] == [begin for begin, _ in ranges[1:]]
        assert edges[0] == NOW_MS - (first + last + 1) * DAY_MS
        assert edges[-1] == NOW_MS - last * DAY_MS
        assert all(0 < b - a <= 366 * DAY_MS for a, b in itertools.pairwise(edges))

    @pytest.mark.parametrize(
        ("start", "end", "said"),
        [
            ("yesterday", "now", "--start"),
            ("-24h", "2026-01-01T00:00:00", "--end"),
            ("-1h", "-2h", "before --end"),
        ],
    )
    def test_odd_ones_are_told(self, start: str, end: str, said: str) -> None:
        with pytest.raises(ConfigurationError, match=said):
            split_range(start, end, NOW_MS)


def test_a_missing_pyarrow_is_told_with_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    options = ExportOptions(
        device_id=1, output=tmp_path / "x", format="parquet", credentials=Credentials("k")
    )
    with pytest.raises(ConfigurationError, match=r"pip install 'iotflow\[parquet\]'"):
        run_export(options)
    assert not list(tmp_path.iterdir())
