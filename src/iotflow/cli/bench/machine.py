"""What figures were taken on; nothing that names the machine."""

import os
import platform
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("iotflow", "fastapi", "uvicorn", "uvloop", "httptools", "sqlalchemy", "msgspec")


def machine() -> dict[str, str]:
    """Processor, cores, system and the versions that matter."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        **{name: version(name) for name in _PACKAGES if find_spec(name) is not None},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
