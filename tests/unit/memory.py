"""What something leaves allocated."""

import tracemalloc
from collections.abc import Callable


def memory_of(work: Callable[[], object]) -> int:
    """Bytes that are allocated once it is done, its result not counted."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
