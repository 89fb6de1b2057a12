"""Waiting for several servers to agree."""

import time
from collections.abc import Callable

from local_servers.errors import LocalServersError, NotReadyError

_POLL_S = 0.1


def wait_until(what: str, holds: Callable[[], object], within_s: float) -> None:
    """Try until `holds` raises nothing.

    Raises:
        LocalServersError: it still raised NotReadyError or OSError when the time was over.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            holds()
        except (NotReadyError, OSError) as error:
            if time.monotonic() > deadline:
                raise LocalServersError(f"{what}: not within {within_s:.0f} s ({error})") from None
            time.sleep(_POLL_S)
        else:
            return
