"""As much of the CQL protocol (version 4) as it takes to ask a Cassandra node something."""

import socket
import struct
from typing import BinaryIO

from local_servers.errors import NotReadyError

ONE = 0x0001
ALL = 0x0005

_VERSION = 0x04
_ERROR, _STARTUP, _READY, _QUERY, _RESULT = 0x00, 0x01, 0x02, 0x07, 0x08
_ROWS = 2
_GLOBAL_TABLE, _MORE_PAGES = 0x01, 0x02


def query(
    host: str, port: int, statement: str, consistency: int = ONE, timeout_s: float = 5.0
) -> list[list[bytes | None]]:
    """Run one statement on a connection of its own; the rows' columns as they come.

    Columns have to be of plain types (no collections).

    Raises:
        NotReadyError: the node answers with an error.
        OSError: it does not answer.
    """
    with socket.create_connection((host, port), timeout_s) as connection:
        answers = connection.makefile("rb")
        connection.sendall(_frame(_STARTUP, struct.pack(">H", 1) + _pair("CQL_VERSION", "3.0.0")))
        _expect(_READY, answers)
        encoded = statement.encode()
        body = struct.pack(">I", len(encoded)) + encoded + struct.pack(">HB", consistency, 0)
        connection.sendall(_frame(_QUERY, body))
        return _rows(_Reader(_expect(_RESULT, answers)))


def _frame(opcode: int, body: bytes) -> bytes:
    return struct.pack(">BBhBI", _VERSION, 0, 0, opcode, len(body)) + body


def _pair(name: str, value: str) -> bytes:
    return b"".join(struct.pack(">H", len(text)) + text.encode() for text in (name, value))


def _expect(wanted: int, answers: BinaryIO) -> bytes:
    header = answers.read(9)
    if len(header) < 9:
        raise NotReadyError("the connection ended")
    opcode, length = struct.unpack(">BI", header[4:])
    body = answers.read(length)
    if opcode == _ERROR:
        raise NotReadyError(body[6:].decode(errors="replace"))
    if opcode != wanted:
        raise NotReadyError(f"an answer of kind {opcode}, not {wanted}")
    return body


class _Reader:
    """Takes one value after the other off a result."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big", signed=True)

    def short(self) -> int:
        return int.from_bytes(self._take(2), "big")

    def skip_texts(self, count: int) -> None:
        for _ in range(count):
            self._take(self.short())

    def value(self) -> bytes | None:
        length = self.number()
        return None if length < 0 else self._take(length)

    def _take(self, count: int) -> bytes:
        self._at += count
        return self._body[self._at - count : self._at]


def _rows(reader: _Reader) -> list[list[bytes | None]]:
    if reader.number() != _ROWS:
        return []
    flags, columns = reader.number(), reader.number()
    if flags & _MORE_PAGES:
        reader.value()
    if flags & _GLOBAL_TABLE:
        reader.skip_texts(2)  # keyspace and table
    for _ in range(columns):
        reader.skip_texts(1 if flags & _GLOBAL_TABLE else 3)
        reader.short()  # the type
    return [[reader.value() for _ in range(columns)] for _ in range(reader.number())]
