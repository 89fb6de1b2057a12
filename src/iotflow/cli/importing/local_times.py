"""Local times to UTC, by explicit rules for the hours that clocks skip and repeat."""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from iotflow.cli.importing.options import MissingHour, RepeatedHour
from iotflow.cli.importing.times import UnknownTimeError, check_range
from iotflow.errors import ConfigurationError

_EPOCH = datetime.fromisoformat("1970-01-01")  # naive, as what it is subtracted from
_MILLISECOND = timedelta(milliseconds=1)
# A year's only repeated hours in one night: what lies further apart is another year's.
_ANOTHER_NIGHT = timedelta(hours=24)
_MOST_SERIES = 4096


class MissingLocalTimeError(UnknownTimeError):
    """A local time that the clocks jumped over."""


def zone_named(name: str) -> ZoneInfo:
    """The time zone of an IANA name.

    Raises:
        ConfigurationError: there is none; the message has the nearest name.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        near = get_close_matches(name, available_timezones(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ", such as Europe/Berlin or UTC."
        raise ConfigurationError(f"--timezone: there is no zone '{name}'{hint}") from None


@dataclass(slots=True)
class _Track:
    """Where a series is: its last local time, and which pass through a repeated hour it is in."""

    last: datetime
    in_repeated: bool = False
    downward: bool = False
    turned: bool = False


class LocalTimes:
    """Resolves local times of a file in the order of its rows.

    A skipped time shifts forward by the jump, or is an error. A repeated one is the first or
    the second of the two; `in-order` takes the first pass through the hour for the first in
    time, and the second pass begins where the clock of the same series stands still or goes
    back. A series that comes into the hour from above (newest first) is read the other way
    round. `shifted` and `repeated` count what the rules were used for.
    """

    def __init__(self, zone: ZoneInfo, missing: MissingHour, repeated: RepeatedHour) -> None:
        self._zone = zone
        self._missing = missing
        self._repeated = repeated
        self._tracks: OrderedDict[str, _Track] = OrderedDict()
        self.shifted = 0
        self.repeated = 0

    def resolve_ms(self, local: datetime, series: str = "") -> int:
        """Epoch milliseconds of a naive local time.

        Raises:
            MissingLocalTimeError: it was skipped, and the rule is to skip it too.
            UnknownTimeError: outside of what is stored.
        """
        try:
            first = _offset(local.replace(tzinfo=self._zone, fold=0))
            second = _offset(local.replace(tzinfo=self._zone, fold=1))
        except OverflowError:
            raise UnknownTimeError("Times from 1970 to 9999 are stored.") from None
        offset = first
        if first < second:
            self._count_skipped()  # the offset before the jump moves it forward by the jump
        elif first > second:
            self.repeated += 1
            if self._is_second(local, series):
                offset = second
        if self._repeated == "in-order":
            self._remember(local, series, in_repeated=first > second)
        return check_range((local - _EPOCH - offset) // _MILLISECOND)

    def _count_skipped(self) -> None:
        if self._missing == "skip":
            raise MissingLocalTimeError("The clocks jumped over this local time.")
        self.shifted += 1

    def _is_second(self, local: datetime, series: str) -> bool:
        if self._repeated != "in-order":
            return self._repeated == "second"
        track = self._tracks.get(series)
        if track is None:
            return False
        if not track.in_repeated or abs(local - track.last) > _ANOTHER_NIGHT:
            track.downward = local < track.last
            track.turned = False
        elif not track.turned:
            track.turned = local >= track.last if track.downward else local <= track.last
        return track.turned != track.downward

    def _remember(self, local: datetime, series: str, *, in_repeated: bool) -> None:
        track = self._tracks.get(series)
        if track is None:
            self._tracks[series] = _Track(local, in_repeated)
            if len(self._tracks) > _MOST_SERIES:
                self._tracks.popitem(last=False)
        else:
            track.last, track.in_repeated = local, in_repeated


def _offset(moment: datetime) -> timedelta:
    return moment.utcoffset() or timedelta(0)
