"""The driver's errors, and what they mean to a caller."""

from typing import Any

from acsylla import errors

from iotflow.errors import StoreUnavailableError

_errors: Any = errors  # compiled, without types

DriverError: type[Exception] = _errors.CassException
"""Every error that the driver raises."""


class TimedOutError(Exception):
    """No answer within our own limit."""


FAILURES: tuple[type[Exception], ...] = (DriverError, TimedOutError)

SLOW: tuple[type[Exception], ...] = (
    TimedOutError,
    _errors.CassErrorLibRequestTimedOut,
    _errors.CassErrorServerReadTimeout,
)

SERVER_ERROR: type[Exception] = _errors.CassErrorServerServerError
"""Something went wrong in a node that it did not foresee."""

# What these say is the statement's fault or its parameters', not the cluster's.
CALLERS_FAULT: tuple[type[Exception], ...] = (
    _errors.CassErrorServerInvalidQuery,
    _errors.CassErrorServerSyntaxError,
    _errors.CassErrorServerAlreadyExists,
    _errors.CassErrorServerFunctionFailure,
    _errors.CassErrorLibBadParams,
    _errors.CassErrorLibIndexOutOfBounds,
    _errors.CassErrorLibInvalidItemCount,
    _errors.CassErrorLibInvalidValueType,
    _errors.CassErrorLibNameDoesNotExist,
)


def translated(error: Exception) -> Exception:
    """What a caller is told: StoreUnavailableError where the cluster is at fault."""
    if isinstance(error, CALLERS_FAULT):
        return error
    unavailable = StoreUnavailableError("telemetry")
    unavailable.__cause__ = error
    return unavailable
