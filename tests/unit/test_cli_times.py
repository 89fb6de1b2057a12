"""Times in CSV files, and local times across clock changes."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from iotflow.cli.importing.local_times import LocalTimes, MissingLocalTimeError
from iotflow.cli.importing.options import MissingHour, RepeatedHour
from iotflow.cli.importing.times import (
    UnknownTimeError,
    is_clock_alone,
    is_date_alone,
    parse_common,
    parser_for,
)
from iotflow.domain.times import format_ms, to_ms

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    "Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "America/Sao_Paulo",
    "Africa/Casablanca", "Asia/Kathmandu", "Pacific/Apia", "UTC",
]  # fmt: skip
minutes = st.integers(0, 20 * 366 * 24 * 60).map(
    lambda n: local("2005-01-01") + timedelta(minutes=n)
)


def local(text: str) -> datetime:
    """A naive time."""
    return datetime.fromisoformat(text)


def local_times(
    zone: ZoneInfo = BERLIN, missing: MissingHour = "shift", repeated: RepeatedHour = "in-order"
) -> LocalTimes:
    return LocalTimes(zone, missing, repeated)


def resolved(times: LocalTimes, locals_: list[str], series: str = "") -> list[str]:
    """UTC hours and minutes of local times of 2025-10-26, when Berlin's 2 o'clock came twice."""
    return [
        format_ms(times.resolve_ms(local(f"2025-10-26 {each}"), series))[11:16] for each in locals_
    ]


class TestCommonForms:
    @pytest.mark.parametrize(
        "text",
        [
            "2010-01-02T03:04:05Z", "2010-01-02 03:04:05Z", "2010/01/02 03:04:05 UTC",
            "2010-01-02T04:04:05+01:00", "2010-01-02T04:04:05+0100", "2010-01-02 04:04:05 +01",
            "2010-1-2 3:04:05z", "02.01.2010 03:04:05Z", "2010-01-02T03:04:05.000Z",
            "1262401445000",
        ],
    )  # fmt: skip
    def test_with_an_offset_are_moments(self, text: str) -> None:
        assert parse_common(text) == 1262401445000

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("2010/01/01 00:00", local("2010-01-01")),
            ("2010/01/01 00:00:00", local("2010-01-01")),
            ("2010-01-01T07:08:09.123456", local("2010-01-01 07:08:09.123000")),
            ("2010-01-01 07:08:09,5", local("2010-01-01 07:08:09.500000")),
            ("31.12.2010 23:59", local("2010-12-31 23:59")),
            ("2010-12-31", local("2010-12-31")),
            ("2010-12-31 24:00", local("2011-01-01")),
        ],
    )
    def test_without_one_are_local(self, text: str, expected: datetime) -> None:
        assert parse_common(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "", "x", "2010-13-01 00:00", "2010-02-29", "2010-01-01 25:00", "2010-01-01 24:01",
            "01/02/2010", "1262401445", "2010-01-01T00:00:00+99:00", "2010-01/01 00:00",
            "99999999999999999", "１２６２４０１４４５０００",
        ],
    )  # fmt: skip
    def test_others_are_refused(self, text: str) -> None:
        with pytest.raises(UnknownTimeError):
            parse_common(text)

    @settings(deadline=None)
    @given(st.text())
    def test_no_text_raises_anything_else(self, text: str) -> None:
        try:
            parsed = parse_common(text)
        except UnknownTimeError:
            return
        assert isinstance(parsed, int | datetime)

    @settings(deadline=None)
    @given(st.datetimes(local("1970-01-02"), local("9999-12-30")))
    def test_iso_forms_mean_what_they_say(self, moment: datetime) -> None:
        cut = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
        assert parse_common(moment.isoformat()) == cut
        assert parse_common(moment.isoformat(" ") + "-02:30") == to_ms(
            moment.replace(tzinfo=UTC) + timedelta(hours=2, minutes=30)
        )

    def test_formats_are_obeyed(self) -> None:
        assert parser_for("%m/%d/%Y %I:%M %p")("12/31/2010 11:05 PM") == local("2010-12-31 23:05")
        assert parser_for("%Y-%m-%d %H:%M %z")("2010-01-01 01:00 +0100") == 1262304000000
        assert parser_for("epoch-seconds")("1262304000.25") == 1262304000250
        with pytest.raises(UnknownTimeError):
            parser_for("%d.%m.%Y")("2010-01-01")

    def test_dates_and_clocks_alone_are_told_apart(self) -> None:
        assert is_clock_alone("7:30")
        assert not is_clock_alone("2010-01-01 7:30")
        assert is_date_alone("2010-01-01")
        assert not is_date_alone("2010-01-01 00:00")
        assert not is_date_alone("1262304000000")


class TestAgainstZoneinfo:
    @settings(deadline=None)
    @given(minutes, st.sampled_from(ZONES), st.sampled_from(["first", "second"]))
    def test_every_local_time_by_rule(
        self, clock: datetime, zone_name: str, repeated: RepeatedHour
    ) -> None:
        zone = ZoneInfo(zone_name)
        fold = int(repeated == "second")
        moment = clock.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        exists = moment.astimezone(zone).replace(tzinfo=None) == clock
        times = local_times(zone, "shift", repeated)
        found = times.resolve_ms(clock)
        if exists:
            assert found == to_ms(moment)
            assert times.shifted == 0
        else:
            before = clock.replace(tzinfo=zone, fold=0).utcoffset()
            after = clock.replace(tzinfo=zone, fold=1).utcoffset()
            assert before is not None
            assert after is not None
            shifted = datetime.fromtimestamp(found / 1000, zone).replace(tzinfo=None)
            assert shifted == clock + (after - before)
            assert times.shifted == 1
            with pytest.raises(MissingLocalTimeError):
                local_times(zone, "skip", repeated).resolve_ms(clock)

    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(ZONES),
        st.integers(2005, 2024),
        st.sampled_from([7, 15, 20, 30, 60]),
        st.booleans(),
    )
    def test_in_order_gives_back_every_regular_record(
        self, zone_name: str, year: int, step_minutes: int, newest_first: bool
    ) -> None:
        """A record at fixed steps over two clock changes, written in local time, is as it was."""
        # Of a half hour that comes twice, an hourly record may hold the second pass alone.
        assume(step_minutes <= 30 or zone_name != "Australia/Lord_Howe")
        zone = ZoneInfo(zone_name)
        begin = datetime(year, 9, 25, tzinfo=UTC)
        step = timedelta(minutes=step_minutes)
        moments = [begin + step * n for n in range(int(timedelta(days=45) / step))]
        if newest_first:
            moments.reverse()
        times = local_times(zone)
        found = [
            times.resolve_ms(moment.astimezone(zone).replace(tzinfo=None)) for moment in moments
        ]
        assert found == [to_ms(moment) for moment in moments]


class TestRepeatedHour:
    def test_in_order_the_second_pass_begins_where_the_clock_goes_back(self) -> None:
        found = resolved(local_times(), ["01:30", "02:00", "02:30", "02:00", "02:30", "03:00"])
        assert found == ["23:30", "00:00", "00:30", "01:00", "01:30", "02:00"]

    def test_in_order_or_where_it_stands_still(self) -> None:
        found = resolved(local_times(), ["01:00", "02:00", "02:00", "03:00"])
        assert found == ["23:00", "00:00", "01:00", "02:00"]

    def test_one_pass_alone_is_the_first(self) -> None:
        assert resolved(local_times(), ["01:00", "02:00", "03:00"]) == ["23:00", "00:00", "02:00"]

    def test_each_series_has_passes_of_its_own(self) -> None:
        times = local_times()
        pairs = [("a", "02:00"), ("b", "02:00"), ("a", "02:30"), ("b", "02:30"),
                 ("a", "02:00"), ("b", "02:00")]  # fmt: skip
        found = [resolved(times, [clock], series)[0] for series, clock in pairs]
        assert found == ["00:00", "00:00", "00:30", "00:30", "01:00", "01:00"]

    def test_the_next_year_begins_anew(self) -> None:
        times = local_times()
        assert resolved(times, ["02:00", "02:00"]) == ["00:00", "01:00"]
        next_year = times.resolve_ms(local("2026-10-25 02:30"))
        assert format_ms(next_year) == "2026-10-25T00:30:00.000Z"

    def test_first_and_second_whatever_the_order(self) -> None:
        clocks = ["02:30", "02:00", "02:30"]
        assert resolved(local_times(repeated="first"), clocks) == ["00:30", "00:00", "00:30"]
        assert resolved(local_times(repeated="second"), clocks) == ["01:30", "01:00", "01:30"]
