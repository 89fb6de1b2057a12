"""The event loop of commands that make many requests."""

import asyncio
import importlib
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's, where there is one for the platform."""
    try:
        return importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return asyncio.new_event_loop
