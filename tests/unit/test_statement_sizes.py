"""Statements of many rows have one of a few sizes."""

from iotflow.stores.statement_sizes import MOST_ROWS, size_for


def test_every_number_of_rows_fits_and_little_is_repeated() -> None:
    for rows in range(1, MOST_ROWS + 1):
        assert rows <= size_for(rows) < 1.25 * rows + 1


def test_there_are_few() -> None:
    assert len({size_for(rows) for rows in range(1, MOST_ROWS + 1)}) <= 40
