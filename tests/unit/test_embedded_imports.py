"""What a process on embedded stores loads: memory that it holds for as long as it runs."""

import subprocess
import sys

DRIVERS = (
    "acsylla",
    "alembic",
    "asyncpg",
    "motor",
    "pymongo",
    "redis",
    "sqlalchemy.dialects.postgresql",
)
PROGRAM = """
import sys, iotflow.cli.serve
from iotflow.runtime.stores import create_stores
from iotflow.settings import Settings
create_stores(Settings.load(data_dir=sys.argv[1]))
print(*[name for name in sys.argv[2:] if name in sys.modules])
"""


def test_no_driver_of_a_server_is_loaded_for_embedded_stores(tmp_path: object) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), *DRIVERS]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
