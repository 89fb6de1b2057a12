"""How deep JSON of callers may be nested. Parsers give up somewhere, each at a depth of its own:
what is taken in must be readable for all that read it later."""

from collections.abc import Iterable
from typing import Any, cast

MAX_LEVELS = 64


def is_too_deep(value: Any, text: bytes) -> bool:
    """Whether objects and lists are nested more than MAX_LEVELS deep in `value`, which is JSON's
    `text` decoded."""
    if text.count(b"{") + text.count(b"[") <= MAX_LEVELS:
        return False
    return _is_deeper(value, MAX_LEVELS)


def _is_deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        value = cast("dict[str, Any]", value).values()
    elif not isinstance(value, list):
        return False
    parts = cast("Iterable[Any]", value)
    return not levels or any(_is_deeper(part, levels - 1) for part in parts)
