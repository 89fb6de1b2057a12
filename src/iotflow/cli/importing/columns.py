"""Which column is what: found from names and first rows where the options do not say."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from iotflow.cli.importing import times
from iotflow.cli.importing.naming import Naming
from iotflow.cli.importing.options import ImportOptions
from iotflow.cli.importing.table import Table
from iotflow.cli.importing.times import UnknownTimeError, parser_for
from iotflow.cli.terminal import quoted
from iotflow.errors import ConfigurationError

_TIME_NAMES = (
    "timestamp", "time", "datetime", "date_time", "date/time", "ts", "date", "timestamp_utc",
    "time_utc", "local_time", "event_time", "created_at", "recorded_at", "zeitstempel", "zeit",
    "datum",
)  # fmt: skip
_NAME_NAMES = (
    "measurement_name", "measurement", "metric", "sensor", "variable", "parameter", "field",
    "channel", "tag", "name",
)  # fmt: skip
_VALUE_NAMES = ("value", "reading", "measured_value", "val", "wert")
_UNIT_NAMES = ("unit", "units", "einheit")


@dataclass(frozen=True, slots=True)
class Series:
    """A column of one measurement."""

    index: int
    name: str
    unit: str


@dataclass(frozen=True, slots=True)
class WideColumns:
    """A column each measurement. `times` are one column, or a date's and a clock's."""

    times: tuple[int, ...]
    series: tuple[Series, ...]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LongColumns:
    """A row each point."""

    times: tuple[int, ...]
    name: int
    value: int
    unit: int | None
    naming: Naming


Columns = WideColumns | LongColumns


def find_columns(table: Table, options: ImportOptions) -> Columns:
    """Find the columns of a table.

    Raises:
        ConfigurationError: it cannot be told, with the option that would tell it.
    """
    naming = Naming(options.rename, options.unit)
    time_indices = _time_columns(table, options)
    if _is_long(table, options):
        return _long(table, options, time_indices, naming)
    return _wide(table, options, time_indices, naming)


def _wide(
    table: Table, options: ImportOptions, time_indices: tuple[int, ...], naming: Naming
) -> WideColumns:
    if options.value or options.unit_column:
        raise ConfigurationError("--value and --unit-column belong to --layout long.")
    if options.measurement:
        chosen = [_index(table, name, "--measurement") for name in options.measurement]
    else:
        chosen = [i for i in range(len(table.columns)) if i not in time_indices]
    named = [i for i in chosen if table.columns[i]]
    naming.require_known(table.columns[i] for i in named)
    named = [i for i in named if naming.new_name(table.columns[i])]
    naming.require_valid(table.columns[i] for i in named)
    _refuse_repeats([naming.new_name(table.columns[i]) for i in named])
    if not named:
        raise ConfigurationError("There is no column left to import.")
    series = tuple(_series(table.columns[i], i, naming) for i in dict.fromkeys(named))
    return WideColumns(time_indices, series, _unnamed(table, chosen))


def _series(column: str, index: int, naming: Naming) -> Series:
    new = naming.new_name(column)
    return Series(index, new, naming.unit_of(column, new))


def _unnamed(table: Table, chosen: Sequence[int]) -> tuple[str, ...]:
    """Columns without a name that do have values: to be told, as they are left out."""
    return tuple(
        f"column {i + 1}"
        for i in chosen
        if not table.columns[i] and any(row.cells[i].strip() for row in table.sample)
    )


def _refuse_repeats(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(
                f"Two columns would be the measurement {quoted(name)}. Choose with --measurement, "
                "or give one another name in the file."
            )


def _long(
    table: Table, options: ImportOptions, time_indices: tuple[int, ...], naming: Naming
) -> LongColumns:
    if len(options.measurement) > 1:
        raise ConfigurationError("--measurement: with --layout long it names one column.")
    name = _given_or_known(table, next(iter(options.measurement), None), _NAME_NAMES, "measurement")
    value = _given_or_known(table, options.value, _VALUE_NAMES, "value")
    unit = (
        _index(table, options.unit_column, "--unit-column")
        if options.unit_column
        else _known(table, _UNIT_NAMES)
    )
    return LongColumns(time_indices, name, value, unit, naming)


def _is_long(table: Table, options: ImportOptions) -> bool:
    if options.layout != "auto":
        return options.layout == "long"
    if options.value or options.unit_column:
        return True
    return _known(table, _NAME_NAMES) is not None and _known(table, _VALUE_NAMES) is not None


def _given_or_known(table: Table, given: str | None, known: Sequence[str], option: str) -> int:
    if given is not None:
        return _index(table, given, f"--{option}")
    index = _known(table, known)
    if index is None:
        raise ConfigurationError(
            f"--{option}: say which column has each point's {option}; there are {_listed(table)}."
        )
    return index


def _known(table: Table, names: Sequence[str]) -> int | None:
    normal = [_normal(column) for column in table.columns]
    return next((normal.index(name) for name in names if name in normal), None)


def _normal(column: str) -> str:
    return "_".join(column.lower().replace("-", "_").split())


def _index(table: Table, name: str, option: str) -> int:
    found = [i for i, column in enumerate(table.columns) if column == name.strip()]
    if len(found) == 1:
        return found[0]
    if found:
        raise ConfigurationError(f"{option}: two columns have the name {quoted(name)}.")
    raise ConfigurationError(
        f"{option}: there is no column {quoted(name)}; there are {_listed(table)}."
    )


def _listed(table: Table) -> str:
    shown = ", ".join(quoted(column) for column in table.columns[:10])
    return shown if len(table.columns) <= 10 else f"{shown} and more"


def _time_columns(table: Table, options: ImportOptions) -> tuple[int, ...]:
    if options.time_column is None:
        return (_detected(table, options),)
    if options.time_column.strip() in table.columns or "+" not in options.time_column:
        return (_index(table, options.time_column, "--time-column"),)
    parts = options.time_column.split("+")
    return tuple(_index(table, part, "--time-column") for part in parts)


def _detected(table: Table, options: ImportOptions) -> int:
    _refuse_no_header(table)
    candidates = [i for i in range(len(table.columns)) if _looks_like_times(table, i, options)]
    _refuse_divided(table, candidates)
    normal = [_normal(column) for column in table.columns]
    for name in _TIME_NAMES:
        for i in candidates:
            if normal[i] == name:
                return i
    if len(candidates) == 1:
        return candidates[0]
    named = next((i for name in _TIME_NAMES for i, n in enumerate(normal) if n == name), None)
    if named is not None and not candidates:
        return named  # its times are unreadable: the check of the first rows says how
    what = "Several columns" if candidates else "No column"
    raise ConfigurationError(
        f"{what} can be the time. Give --time-column; there are {_listed(table)}."
    )


def _looks_like_times(table: Table, index: int, options: ImportOptions) -> bool:
    parse = parser_for(options.time_format)
    cells = [cell for row in table.sample if (cell := row.cells[index].strip())]
    return bool(cells) and sum(_parses(parse, cell) for cell in cells) * 2 > len(cells)


def _parses(parse: times.TimeParser, cell: str) -> bool:
    try:
        parse(cell)
    except UnknownTimeError:
        return False
    return True


def _refuse_no_header(table: Table) -> None:
    if any(_parses(times.parse_common, column) for column in table.columns):
        raise ConfigurationError(
            "The first line holds values. It must name the columns, such as: time,temperature"
        )


def _refuse_divided(table: Table, candidates: Sequence[int]) -> None:
    """A date and a clock in two columns: with the date alone, a day's points would be one."""
    clocks = [i for i in range(len(table.columns)) if _all(table, i, times.is_clock_alone)]
    dates = [i for i in candidates if _all(table, i, times.is_date_alone)]
    if clocks and dates and len(candidates) == len(dates):
        date, clock = table.columns[dates[0]], table.columns[clocks[0]]
        raise ConfigurationError(
            f"The date and the clock stand in two columns. Give --time-column '{date}+{clock}', "
            "or --time-column with the one to use."
        )


def _all(table: Table, index: int, test: Callable[[str], bool]) -> bool:
    cells = [cell for row in table.sample if (cell := row.cells[index].strip())]
    return bool(cells) and all(test(cell) for cell in cells)
