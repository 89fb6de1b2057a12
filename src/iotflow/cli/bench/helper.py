"""The inside of a helper's process: a plan as MessagePack on stdin, its result on stdout.

The outside is `generator.py`.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from iotflow.cli.loops import loop_factory

P = TypeVar("P")


def carry_out(kind: type[P], run: Callable[[P], Coroutine[Any, Any, object]]) -> None:
    """Read a plan, run it, and say what came of it."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=kind)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        result = runner.run(run(plan))
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))
