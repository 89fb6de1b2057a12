"""As much of the Redis protocol as it takes to ask a server how it is."""

import socket
from types import TracebackType
from typing import BinaryIO, Self

from local_servers.errors import NotReadyError

Reply = str | int | None | list["Reply"]


class Redis:
    """One connection, closed at the end of its `with` block."""

    def __init__(self, host: str, port: int, timeout_s: float = 2.0) -> None:
        self._socket = socket.create_connection((host, port), timeout_s)
        self._answers: BinaryIO = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._answers.close()
        self._socket.close()

    def __call__(self, *words: str | int) -> Reply:
        """Send a command and return its reply.

        Raises:
            NotReadyError: the reply is an error, or the connection ended.
            OSError: the connection broke.
        """
        encoded = [str(word).encode() for word in words]
        parts = [b"*%d\r\n" % len(encoded)]
        parts += [b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded]
        self._socket.sendall(b"".join(parts))
        return self._reply()

    def info(self, *words: str) -> dict[str, str]:
        """The reply to a command that answers with `name:value` lines."""
        reply = self(*words)
        pairs = (line.partition(":") for line in str(reply).splitlines() if ":" in line)
        return {name: value for name, _, value in pairs}

    def _reply(self) -> Reply:
        line = self._answers.readline().decode().rstrip("\r\n")
        kind, rest = line[:1], line[1:]
        match kind:
            case "+":
                return rest
            case ":":
                return int(rest)
            case "$":
                return None if rest == "-1" else self._text(int(rest))
            case "*":
                return [self._reply() for _ in range(int(rest))]
            case "-":
                raise NotReadyError(rest)
            case _:
                raise NotReadyError("the connection ended")

    def _text(self, length: int) -> str:
        return self._answers.read(length + 2)[:-2].decode()
