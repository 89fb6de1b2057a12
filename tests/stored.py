"""What the files of embedded stores hold, looked at while this process has them open."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from iotflow.stores.telemetry.sqlite.driver import open_file

_PATIENCE_S = 10


def stored(path: Path, statement: str, *values: Any) -> list[Any]:
    """The rows of a statement, which may also change something."""
    if path.name == "telemetry.db":  # see driver.py: not with the library of the others
        with closing(open_file(path, busy_timeout=_PATIENCE_S * 1000)) as connection:
            return connection.execute(statement, values).fetchall()
    with closing(sqlite3.connect(path, timeout=_PATIENCE_S)) as others, others:
        return others.execute(statement, values).fetchall()
