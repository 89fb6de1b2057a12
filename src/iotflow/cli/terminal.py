"""What the client commands say: results on standard output, progress on standard error."""

from rich.console import Console
from rich.markup import escape
from rich.text import Text

_SHOWN = 60  # characters of foreign text that a message quotes


def results() -> Console:
    """Where a command's result goes."""
    return Console(soft_wrap=True, highlight=False)


def progress() -> Console:
    """Where progress and warnings go, so that results can be piped."""
    return Console(stderr=True, highlight=False)


def say(console: Console, line: str) -> None:
    """One line, whatever characters it has."""
    console.print(Text(line), soft_wrap=True)


def quoted(text: str) -> str:
    """Foreign text fit for one line of a message: bounded, and printable."""
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
    return "'" + "".join(c if c.isprintable() else "?" for c in shown) + "'"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 point`, `8,759 points`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def plain(text: str) -> str:
    """Text for a table cell, taken as it is."""
    return escape("".join(c if c.isprintable() else "?" for c in text))
