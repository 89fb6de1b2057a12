"""The tree of errors that IoTFlow raises. It knows nothing of HTTP.

`http/problems.py` is the one place that turns these into answers. A message is
written for the caller: it names what to send and never repeats what was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field at fault: where it is, a stable code, and what to send instead."""

    field: str
    code: str
    message: str


class IoTFlowError(Exception):
    """Base of every expected failure. `code` is stable and part of the contract."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        # Further members of the report, for errors that have more to say.
        self.extra: Mapping[str, Any] = {}


class UnreadableBodyError(IoTFlowError):
    """The body cannot be read at all (not JSON, not UTF-8, broken gzip)."""

    code = "invalid_json"


class InvalidInputError(IoTFlowError):
    """The input was read and is wrong; `errors` names the fields."""

    code = "validation_failed"

    def __init__(
        self, message: str, *, code: str | None = None, errors: tuple[FieldError, ...] = ()
    ) -> None:
        super().__init__(message, code=code)
        self.errors = errors

    @classmethod
    def of_field(cls, field: str, code: str, message: str) -> "InvalidInputError":
        """One field at fault, its message doubling as the summary."""
        return cls(message, errors=(FieldError(field, code, message),))


class TokenRequestError(InvalidInputError):
    """A request for a token is refused, with one of the codes of RFC 6749, 5.2."""

    code = "invalid_request"


class NotAuthenticatedError(IoTFlowError):
    """No credentials, or credentials that prove nothing."""

    code = "not_authenticated"


class NotAllowedError(IoTFlowError):
    """A known caller who may not do this."""

    code = "not_allowed"


class NotFoundError(IoTFlowError):
    """There is no such thing, or it belongs to someone else."""

    code = "not_found"


class ConflictError(IoTFlowError):
    """The request contradicts what is there."""

    code = "conflict"


class StaleVersionError(IoTFlowError):
    """The caller's `If-Match` is not the current version."""

    code = "stale_version"


class TooLargeError(IoTFlowError):
    """The body exceeds its bound."""

    code = "body_too_large"


class UnsupportedMediaError(IoTFlowError):
    """A content type or encoding that this call does not take."""

    code = "unsupported_media_type"


class RateLimitedError(IoTFlowError):
    """A named policy's limit is reached; after `retry_after_s` it would be accepted."""

    code = "rate_limited"

    def __init__(self, policy: str, limit: int, window_s: int, retry_after_s: int) -> None:
        super().__init__(
            f"The limit of policy '{policy}' ({limit} in {window_s} s) is reached. "
            f"Try again in {retry_after_s} s."
        )
        self.policy = policy
        self.limit = limit
        self.window_s = window_s
        self.retry_after_s = retry_after_s


class StoreUnavailableError(IoTFlowError):
    """A store role does not answer; nothing is pretended to be done."""

    code = "store_unavailable"

    def __init__(self, role: str, *, retry_after_s: int = 2) -> None:
        super().__init__(f"The {role} store is not available. Try again in {retry_after_s} s.")
        self.role = role
        self.retry_after_s = retry_after_s


class OverloadedError(IoTFlowError):
    """A bounded queue or pool is full; the request was not begun."""

    code = "overloaded"

    def __init__(self, what: str, *, retry_after_s: int = 1) -> None:
        super().__init__(f"Too much {what} work is waiting. Try again in {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class StoreBusyError(OverloadedError, StoreUnavailableError):
    """A server has as many calls waiting as it may; this one was not begun.

    Whoever can go on without a store that is away can go on without one that is busy.
    """

    def __init__(self, role: str) -> None:
        IoTFlowError.__init__(self, f"Too much {role} work is waiting. Try again in 1 s.")
        self.role = role
        self.retry_after_s = 1


class ConfigurationError(IoTFlowError):
    """A setting that cannot work; ends the start with one line."""

    code = "configuration"
