"""Cursors: opaque to callers, checked by us, bound to the query that made them."""

import base64
import binascii
import hashlib
import hmac
from typing import Annotated, TypeVar

import msgspec
from pydantic import Field

from iotflow.errors import InvalidInputError

Limit = Annotated[int, Field(ge=1, le=1000, description="Items on a page")]
Cursor = Annotated[
    str | None,
    Field(max_length=4096, description="`next_cursor` of the page before, with the same query"),
]

T = TypeVar("T")
_SEAL_BYTES = 12


class Cursors:
    """Seals page keys, so that a cursor cannot be made up or used with another query."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"cursor:" + secret.encode()).digest()

    def encode(self, query: object, page_key: object) -> str:
        """A cursor for the page after `page_key` of a query (any JSON-encodable value)."""
        payload = msgspec.json.encode(page_key)
        return base64.urlsafe_b64encode(self._seal(query, payload) + payload).decode("ascii")

    def decode(self, query: object, cursor: str, kind: type[T]) -> T:
        """The page key of a cursor.

        Raises:
            InvalidInputError: it is none of ours, or one of another query.
        """
        try:
            raw = base64.urlsafe_b64decode(cursor.encode("ascii"))
        except (UnicodeEncodeError, binascii.Error):
            raise _invalid() from None
        seal, payload = raw[:_SEAL_BYTES], raw[_SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(query, payload)):
            raise _invalid()
        return msgspec.json.decode(payload, type=kind)

    def _seal(self, query: object, payload: bytes) -> bytes:
        message = msgspec.json.encode(query) + b"\0" + payload
        return hashlib.blake2b(message, digest_size=_SEAL_BYTES, key=self._key).digest()


def _invalid() -> InvalidInputError:
    return InvalidInputError.of_field(
        "cursor",
        "invalid_cursor",
        "This cursor does not belong to this query. Repeat that query, or leave it out.",
    )
