"""How many rows a statement has that writes many at once.

A prepared statement is kept, about 0.6 KB for each of its rows. One for every number of rows that
ever came together was up to 30 MB. So there are few sizes, and the last row is repeated up to the
next of them.
"""

from bisect import bisect_left
from itertools import chain

MOST_ROWS = 1024

# In steps of a quarter of the power of two below: repetitions cost little.
_QUARTERS = [range(2**power, 2 ** (power + 1), 2**power // 4) for power in range(2, 10)]
_SIZES = (1, 2, 3, *chain.from_iterable(_QUARTERS), MOST_ROWS)


def size_for(rows: int) -> int:
    """The smallest size that holds so many rows, of which there are at most MOST_ROWS."""
    return _SIZES[bisect_left(_SIZES, rows)]
