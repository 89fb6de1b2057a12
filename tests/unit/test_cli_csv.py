"""Reading CSV files: whatever they look like, a bad row costs itself alone."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iotflow.cli.importing.batches import Batch, batches, body_of
from iotflow.cli.importing.cells import Cells
from iotflow.cli.importing.lines import MAX_LINE, BadRow, Row, read_rows
from iotflow.cli.importing.naming import suggested
from iotflow.cli.importing.options import ImportOptions
from iotflow.cli.importing.records import Item, Record, Rejected
from iotflow.cli.importing.source import Source
from iotflow.domain.points import Point, Value
from iotflow.domain.times import format_ms
from iotflow.errors import ConfigurationError
from iotflow.telemetry.decoding import Reading, decode_batch
from iotflow.telemetry.verdicts import Rejection, canonical_name

Written = Callable[[str | bytes], Path]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def write(content: str | bytes) -> Path:
        file = tmp_path / "data.csv"
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    return write


def read(file: Path, **options: object) -> list[Item]:
    asked = ImportOptions(file=file, **options)
    with Source(asked).reading() as reading:
        return [item for batch in reading.batches() for item in [*batch.records, *batch.rejected]]


def values(items: Sequence[Item]) -> list[tuple[str, dict[str, Value]]]:
    return [
        (format_ms(item.timestamp_ms), item.values) for item in items if isinstance(item, Record)
    ]


def refused(items: Sequence[Item]) -> list[tuple[int, str]]:
    return [(item.line, item.code) for item in items if isinstance(item, Rejected)]


class TestRows:
    def test_quotes_delimiters_and_line_ends(self) -> None:
        text = 'a;"b;""c"""\r\n\r\n;;\r\nd;"e\r\nf"\r\ng;h'
        rows = list(read_rows(io.StringIO(text, newline=""), ";", 2))
        assert rows == [
            Row(1, ["a", 'b;"c"']),
            Row(4, ["d", "e\r\nf"]),
            Row(6, ["g", "h"]),
        ]

    def test_a_quote_that_is_never_closed_costs_its_own_line(self) -> None:
        text = 'a,1\n"b,2\nc,3\n"d",4\n'
        rows = list(read_rows(io.StringIO(text, newline=""), ",", 2))
        assert rows == [
            Row(1, ["a", "1"]),
            BadRow(2, "unclosed_quote", "A quote is opened and not closed."),
            Row(3, ["c", "3"]),
            Row(4, ["d", "4"]),
        ]

    def test_far_more_lines_after_it_than_fit_into_a_cell_are_all_read(self) -> None:
        lines = ['"a,1', *(f"name{n},{n}" for n in range(30_000))]
        rows = list(read_rows(io.StringIO("\n".join(lines), newline=""), ",", 2))
        assert [row.line for row in rows] == list(range(1, 30_002))
        assert [type(row) for row in rows].count(BadRow) == 1

    def test_a_line_without_end_is_refused_in_bounded_memory(self) -> None:
        text = f"a,1\n{'x' * (3 * MAX_LINE)}\nb,2\n"
        rows = list(read_rows(io.StringIO(text, newline=""), ",", 2))
        assert [(row.line, getattr(row, "code", "")) for row in rows] == [
            (1, ""),
            (2, "line_too_long"),
            (3, ""),
        ]

    @settings(deadline=None)
    @given(
        st.lists(
            st.lists(
                st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00")),
                min_size=3,
                max_size=3,
            ).filter(any)
        )
    )
    def test_what_the_csv_module_writes_comes_back(self, rows: list[list[str]]) -> None:
        file = io.StringIO(newline="")
        csv.writer(file).writerows(rows)
        file.seek(0)
        assert [row.cells for row in read_rows(file, ",", 3)] == rows

    @settings(deadline=None)
    @given(st.text(), st.sampled_from(",;\t|"))
    def test_no_text_raises_or_numbers_lines_backwards(self, text: str, delimiter: str) -> None:
        rows = list(read_rows(io.StringIO(text, newline=""), delimiter, 2))
        numbers = [row.line for row in rows]
        assert numbers == sorted(set(numbers))
        assert all(isinstance(row, BadRow) or len(row.cells) == 2 for row in rows)


class TestWide:
    def test_columns_delimiter_byte_order_mark_and_crlf(self, written: Written) -> None:
        file = written(
            "\ufefftemp;open;Time;note\r\n21.5;true;2026-01-01T00:00:00Z;\r\n"
            ";FALSE;2026-01-01 01:00+01:00;wet, cold\r\n"
        )
        assert values(read(file)) == [
            ("2026-01-01T00:00:00.000Z", {"temp": 21.5, "open": True}),
            ("2026-01-01T00:00:00.000Z", {"open": False, "note": "wet, cold"}),
        ]

    def test_utf_16_with_its_mark(self, written: Written) -> None:
        file = written("time,ort\n2026-01-01T00:00:00Z,Köln\n".encode("utf-16"))
        assert values(read(file))[0][1] == {"ort": "Köln"}

    def test_another_encoding_is_named_or_costs_the_row(self, written: Written) -> None:
        content = "time,ort\n2026-01-01T00:00:00Z,Köln\n2026-01-01T00:01:00Z,Bonn\n"
        file = written(content.encode("latin-1"))
        assert refused(read(file)) == [(2, "invalid_text")]
        assert values(read(file, encoding="latin-1"))[0][1] == {"ort": "Köln"}

    def test_bad_rows_cost_themselves_alone(self, written: Written) -> None:
        file = written(
            "time,a,b\n"
            "2026-01-01T00:00:00Z,1,2\n"
            "nonsense,1,2\n"
            "2026-01-01T00:02:00Z,NaN,2\n"
            "2026-01-01T00:03:00Z,1\n"
            "2026-01-01T00:04:00Z,1,2,3\n"
            "2026-01-01T00:05:00,1,2\n"
            f"2026-01-01T00:06:00Z,{'x' * 2000},2\n"
            "2026-02-30T00:00:00Z,1,2\n"
            "1969-01-01T00:00:00Z,1,2\n"
            "2026-01-01T00:07:00Z,1e999,2\n"
            ",1,2\n"
            "2026-01-01T00:08:00Z,1,2\n"
        )
        items = read(file)
        assert refused(items) == [
            (3, "invalid_timestamp"),
            (4, "not_finite"),
            (5, "wrong_cell_count"),
            (6, "wrong_cell_count"),
            (7, "no_offset"),
            (8, "text_too_long"),
            (9, "invalid_timestamp"),
            (10, "invalid_timestamp"),
            (11, "not_finite"),
            (12, "invalid_timestamp"),
        ]
        assert [sorted(found) for _, found in values(items)] == [
            ["a", "b"], ["b"], ["b"], ["b"], ["a", "b"],
        ]  # fmt: skip

    def test_renaming_units_leaving_out_and_missing_words(self, written: Written) -> None:
        file = written("time,Temp (°C),x,y\n2026-01-01T00:00:00Z,-999,1,NA\n1767225600001,2,3,4\n")
        items = read(
            file,
            rename=("Temp (°C)=temperature", "x="),
            unit=("temperature=degC", "y=V"),
            missing=("-999", "NA"),
        )
        bodies = [item.body for item in items if isinstance(item, Record)]
        assert bodies == [
            b'{"timestamp":1767225600001,"data":{"temperature":{"value":2,"unit":"degC"},'
            b'"y":{"value":4,"unit":"V"}}}'
        ]

    def test_a_row_of_more_than_256_measurements_becomes_several_records(
        self, written: Written
    ) -> None:
        names = [f"m{n}" for n in range(600)]
        row = ",".join(["1767225600000", *(str(n) for n in range(600))])
        items = read(written(f"ts,{','.join(names)}\n{row}\n"))
        assert [len(found) for _, found in values(items)] == [256, 256, 88]

    @pytest.mark.parametrize(
        ("content", "options", "said"),
        [
            ("", {}, "empty"),
            ("\x00\x01,\x02", {}, "not a CSV file"),
            ("time\n1\n", {}, "one column only"),
            ("time,2x\n2026-01-01T00:00:00Z,1\n", {}, "--rename '2x=m_2x'"),
            ("time,Temp (°C)\n2026-01-01T00:00:00Z,1\n", {}, "--rename 'Temp (°C)=Temp_C'"),
            ("time,a,a\n2026-01-01T00:00:00Z,1,2\n", {}, "Two columns"),
            ("time,a,b\n2026-01-01T00:00:00Z,1,2\n", {"rename": ("a=b",)}, "Two columns"),
            ("time,a\n2026-01-01T00:00:00Z,1\n", {"rename": ("c=b",)}, "no measurement 'c'"),
            ("time,a\n2026-01-01T00:00:00Z,1\n", {"unit": ("a",)}, "NAME=UNIT"),
            ("time,a\n2026-01-01 00:00,1\n", {}, "--timezone"),
            ("time,a\n01/02/2026 00:00,1\n", {"timezone": "UTC"}, "Day first or month first"),
            ("time,a\n1767225600,1\n", {}, "epoch-seconds"),
            ("a,b\n2026-01-01T00:00:00Z,2026-01-01T00:00:00Z\n", {}, "Several columns"),
            ("a,b\n1,2\n", {}, "No column"),
            ("date,time,a\n2026-01-01,10:00,1\n", {"timezone": "UTC"}, "'date+time'"),
            ("2026-01-01T00:00:00Z,1\n2026-01-01T00:01:00Z,2\n", {}, "must name the columns"),
            ("time,a\n2026-01-01T00:00:00Z,1\n", {"time_column": "zeit"}, "there are 'time', 'a'"),
            ("time,a\n2026-01-01T00:00:00Z,1\n", {"measurement": ("b",)}, "no column 'b'"),
            ("time,a\n2026-01-01T00:00:00Z,1\n", {"delimiter": "xy"}, "--delimiter"),
            ("time,a\n2026-01-01T00:00:00Z,1\n", {"encoding": "klingon"}, "--encoding"),
            ("time,a\n2026-01-01T00:00:00Z,1\n", {"time_format": "%Q%"}, "--time-format"),
            ("time,a\n2026-01-01 00:00,1\n", {"timezone": "Europe/Berln"}, "Europe/Berlin"),
            ("time,a\n2026-01-01 00:00,1\n", {"timezone": "Europe"}, "no zone 'Europe'"),
            ("time,name,value\n1767225600000,a b,1\n", {}, "--rename 'a b=a_b'"),
        ],
    )
    def test_what_cannot_work_is_said_before_anything_is_sent(
        self, written: Written, content: str, options: dict[str, object], said: str
    ) -> None:
        with pytest.raises(ConfigurationError) as raised:
            read(written(content), **options)
        assert said in raised.value.message
        assert "\n" not in raised.value.message

    def test_a_date_and_a_clock_in_two_columns_are_joined_on_request(
        self, written: Written
    ) -> None:
        file = written("date,time,a\n2026-07-01,10:00,1\n")
        items = read(file, timezone="Europe/Berlin", time_column="date+time")
        assert values(items) == [("2026-07-01T08:00:00.000Z", {"a": 1})]

    def test_decimal_commas(self, written: Written) -> None:
        file = written("Zeit;a\n01.02.2026 03:04;1,5\n")
        items = read(file, timezone="UTC", decimal=",")
        assert values(items) == [("2026-02-01T03:04:00.000Z", {"a": 1.5})]


class TestLong:
    def test_columns_are_found_and_types_and_units_kept(self, written: Written) -> None:
        file = written(
            "timestamp,measurement_name,value,unit\n"
            "2026-01-01T00:00:00Z,count,9007199254740993,\n"
            "2026-01-01T00:00:00Z,temp,21.50,degC\n"
            '2026-01-01T00:00:01Z,note,"two\nlines",\n'
            "2026-01-01T00:00:02Z,open,true,\n"
            "2026-01-01T00:00:03Z,open,,\n"
        )
        assert values(read(file)) == [
            ("2026-01-01T00:00:00.000Z", {"count": 9007199254740993}),
            ("2026-01-01T00:00:00.000Z", {"temp": 21.5}),
            ("2026-01-01T00:00:01.000Z", {"note": "two\nlines"}),
            ("2026-01-01T00:00:02.000Z", {"open": True}),
        ]

    def test_columns_can_be_named(self, written: Written) -> None:
        file = written("when,what,how_much,in\n2026-01-01T00:00:00Z,a,1,V\n")
        items = read(file, measurement=("what",), value="how_much", unit_column="in")
        assert [item.body for item in items if isinstance(item, Record)] == [
            b'{"timestamp":1767225600000,"data":{"a":{"value":1,"unit":"V"}}}'
        ]


class TestCells:
    @pytest.mark.parametrize(
        ("cell", "value"),
        [
            ("1", 1), ("-7", -7), ("+7", 7), ("007", 7), ("1.0", 1.0), (".5", 0.5), ("5.", 5.0),
            ("1e3", 1000.0), (" 2 ", 2), ("9223372036854775807", 2**63 - 1),
            ("9223372036854775808", float(2**63)), ("True", True), ("FALSE", False),
            ("yes", "yes"), ("1,5", "1,5"), ("0x10", "0x10"), ("1_000", "1_000"), ("١", "١"),
        ],
    )  # fmt: skip
    def test_types(self, cell: str, value: Value) -> None:
        found = Cells().value("a", cell)
        assert (found, type(found)) == (value, type(value))

    @pytest.mark.parametrize("cell", ["nan", "-Infinity", "inf", "1e999", "9" * 400])
    def test_what_is_no_finite_number_is_rejected(self, cell: str) -> None:
        found = Cells().value("a", cell)
        assert isinstance(found, Rejection)
        assert found.code == "not_finite"

    @settings(deadline=None)
    @given(st.text())
    def test_no_cell_raises(self, cell: str) -> None:
        assert isinstance(Cells().value("a", cell), int | float | bool | str | Rejection)

    @settings(deadline=None)
    @given(st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False))
    def test_numbers_keep_value_and_type(self, number: float) -> None:
        found = Cells().value("a", repr(number))
        assert (found, type(found)) == (number, type(number))


@settings(deadline=None)
@given(st.text(min_size=1))
def test_suggested_names_are_valid(name: str) -> None:
    assert canonical_name(suggested(name)) is not None


class TestBatches:
    @staticmethod
    def record(line: int, points: int, size: int = 10) -> Record:
        data = dict.fromkeys((f"m{n}" for n in range(points)), 1)
        return Record(line, "", line, data, b"x" * size)

    def bounds(self, made: list[Batch]) -> list[tuple[int, int]]:
        return [(len(batch.records), batch.points) for batch in made]

    def test_are_bounded_in_records_points_and_bytes(self) -> None:
        assert self.bounds(list(batches((self.record(n, 1) for n in range(12)), 5))) == [
            (5, 5), (5, 5), (2, 2),
        ]  # fmt: skip
        many = [self.record(n, 256) for n in range(100)]
        assert self.bounds(list(batches(many, 5000))) == [(78, 19968), (22, 5632)]
        large = [self.record(n, 1, 3_000_000) for n in range(5)]
        assert [len(body_of(batch.records)) < 8 * 2**20 for batch in batches(large, 5000)] == [
            True, True, True,
        ]  # fmt: skip

    def test_hold_a_bounded_number_of_rejections(self) -> None:
        bad = (Rejected(n, "", None, "x", "") for n in range(12_000))
        assert [len(batch.rejected) for batch in batches(bad, 5000)] == [5000, 5000, 2000]

    def test_bodies_are_what_the_service_reads(self, written: Written) -> None:
        file = written("time,a,b\n1767225600000,1,x\n1970-01-01T00:00:00Z,2.5,true\n")
        records = [item for item in read(file) if isinstance(item, Record)]
        decoded = decode_batch(body_of(records), lines=False)
        assert [each.points for each in decoded if isinstance(each, Reading)] == [
            [Point(1767225600000, "a", 1), Point(1767225600000, "b", "x")],
            [Point(0, "a", 2.5), Point(0, "b", True)],
        ]
        assert [each.timestamp_ms for each in decoded if isinstance(each, Reading)] == [
            1767225600000, 0,
        ]  # fmt: skip
