"""What strangers' bytes go through, each with what must hold of it.

A target takes any bytes. It may raise nothing: an error of the tree is an answer, whatever else
comes out of it is a defect, and so is an AssertionError.
"""

import gzip
import zlib
from collections.abc import Callable, Coroutine
from ipaddress import ip_network
from math import isfinite
from typing import Any

from iotflow.accounts.tokens import AccessTokens
from iotflow.domain.secrets import digest_of
from iotflow.domain.times import (
    DAY_MS,
    MAX_TIMESTAMP_MS,
    InvalidTimeError,
    TimeRange,
    format_ms,
    parse_integer_time,
    parse_query_time,
    parse_rfc3339,
)
from iotflow.errors import IoTFlowError, NotAuthenticatedError
from iotflow.http.authentication import bearer_token
from iotflow.http.bodies import read_body
from iotflow.http.pagination import Cursors
from iotflow.http.proxies import TrustProxies
from iotflow.stores.telemetry.protocol import PageKey
from iotflow.telemetry.batch import Batch
from iotflow.telemetry.decoding import (
    MAX_MEASUREMENTS,
    MAX_POINTS,
    MAX_RECORDS,
    Reading,
    decode_batch,
    decode_submission,
)
from iotflow.telemetry.ranges import MAX_DAYS, RangeCursors, resolve_range
from iotflow.telemetry.verdicts import Rejection, canonical_name
from iotflow.telemetry.windows import parse_window, parse_zone

SECRET = "a secret that only this test has, of 32 and more"
NOW_MS = 1_767_225_600_000
MAX_BODY = 4096
# The fast decoder takes no byte order mark, the patient one does: the same body, read by the other.
_PATIENTLY = b"\xef\xbb\xbf"

_cursors = Cursors(SECRET)
_range_cursors = RangeCursors(_cursors)
_tokens = AccessTokens([SECRET], 900)


def submission(data: bytes) -> None:
    """Both decoders say the same of a body, and what they let through can be stored."""
    found = _outcome(lambda: decode_submission(data))
    if not data.startswith(_PATIENTLY):
        _assert_same(found, _outcome(lambda: decode_submission(_PATIENTLY + data)))
    if isinstance(found, Reading):
        _check_reading(found)


def batch(data: bytes) -> None:
    """The same of a batch, as a document and, after a leading byte, as lines."""
    lines = data[:1] == b"\n"
    found = _outcome(lambda: decode_batch(data, lines=lines))
    if not lines and not data.startswith(_PATIENTLY):
        again = _outcome(lambda: decode_batch(_PATIENTLY + data, lines=False))
        _assert_same(found, again)
    if isinstance(found, list):
        assert 0 < len(found) <= MAX_RECORDS
        for each in found:
            if isinstance(each, Reading):
                _check_reading(each)
                assert each.timestamp_ms is not None
        judged = Batch(found, MAX_TIMESTAMP_MS)
        points = judged.points
        assert len(points) <= judged.accepted <= MAX_POINTS
        assert list(points) == sorted(points, key=lambda point: point.timestamp_ms)
        if points:
            judged.details()


def _outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except IoTFlowError as error:
        return error


def _assert_same(one: Any, other: Any) -> None:
    if isinstance(one, IoTFlowError):
        assert isinstance(other, IoTFlowError), (one, other)
        assert one.error_code == other.error_code, (one, other)
    else:
        # By their representation: 1, 1.0 and True are equal, and are not the same value.
        assert _shown(one) == _shown(other), (one, other)


def _shown(found: Any) -> Any:
    if isinstance(found, list):
        return [_shown(each) for each in found]
    if isinstance(found, Rejection):
        return repr(found)
    return repr((found.points, found.timestamp_ms, found.metadata, found.rejected))


def _check_reading(reading: Reading) -> None:
    assert 0 < len(reading.points) + len(reading.rejected) <= MAX_MEASUREMENTS
    assert reading.timestamp_ms is None or 0 <= reading.timestamp_ms <= MAX_TIMESTAMP_MS
    for point in reading.points:
        name, value, unit = point.measurement, point.value, point.unit
        assert point.timestamp_ms == (reading.timestamp_ms or 0)
        assert canonical_name(name) == name
        assert not isinstance(value, float) or isfinite(value)
        assert isinstance(value, bool) or not isinstance(value, int) or -(2**63) <= value < 2**63
        assert not isinstance(value, str) or len(value.encode()) <= 1024
        assert len(unit.encode()) <= 128
    for rejection in reading.rejected:
        assert len((rejection.measurement or "").encode()) <= 256


def compressed(data: bytes) -> None:
    """What is decompressed is what gzip says, and never more than the bound."""
    found = _outcome(lambda: _now(read_body(_receiving(data), b"gzip", MAX_BODY)))
    if isinstance(found, bytes):
        assert len(found) <= MAX_BODY
        try:
            assert found == gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            # Python's reader wants more of what stands between and after the members.
            return


def _receiving(data: bytes) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    return receive


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")


def times(data: bytes) -> None:
    """A time is in the calendar or refused; formatting and reading undo each other."""
    text = data.decode("utf-8", "replace")
    for parse in (parse_rfc3339, lambda each: parse_query_time(each, NOW_MS), _integer):
        try:
            found = parse(text)
        except InvalidTimeError:
            continue
        assert 0 <= found <= MAX_TIMESTAMP_MS
        assert parse_rfc3339(format_ms(found)) == found


def _integer(text: str) -> int:
    return parse_integer_time(int.from_bytes(text.encode()[:16], signed=True))


def ranges(data: bytes) -> None:
    """A range is not empty and spans what a query may; so with windows and zones."""
    start, _, end = data.decode("utf-8", "replace").partition("\n")
    found = _outcome(lambda: resolve_range(start or None, end or None, NOW_MS))
    if isinstance(found, TimeRange):
        assert 0 <= found.start_ms < found.end_ms
        assert found.length_ms <= MAX_DAYS * DAY_MS + 60_000
    window = _outcome(lambda: parse_window(start))
    assert isinstance(window, IoTFlowError) or window.count > 0
    _outcome(lambda: parse_zone(end))


def cursors(data: bytes) -> None:
    """Nobody makes a cursor but us; ours are read back, and none with a byte changed."""
    text = data.decode("latin-1")
    assert isinstance(_outcome(lambda: _cursors.decode("query", text, PageKey)), IoTFlowError)
    key = PageKey(int.from_bytes(data[:6]), data[6:].decode("utf-8", "replace"))
    cursor = _cursors.encode("query", key)
    assert _cursors.decode("query", cursor, PageKey) == key
    assert isinstance(_outcome(lambda: _cursors.decode("other", cursor, PageKey)), IoTFlowError)
    at = data[0] % len(cursor) if data else 0
    changed = cursor[:at] + ("A" if cursor[at] != "A" else "B") + cursor[at + 1 :]
    assert isinstance(_outcome(lambda: _cursors.decode("query", changed, PageKey)), IoTFlowError)
    within = TimeRange(key.timestamp_ms, key.timestamp_ms + 1)
    ranged = _range_cursors.encode("query", within, "-24h", None, key)
    again, _, after = _range_cursors.decode("query", ranged, "-24h", None, PageKey)
    assert (again, after) == (within, key)
    _outcome(lambda: _range_cursors.decode("query", text, None, None, PageKey))


def tokens(data: bytes) -> None:
    """Nobody makes a token but us, and a header of any bytes is a token or none."""
    header = data.decode("latin-1")
    for text in (header, bearer_token(header) or "", data.decode("utf-8", "replace")):
        assert len(digest_of(text)) == 64
        try:
            _tokens.read(text)
        except NotAuthenticatedError:
            continue
        raise AssertionError("a token that we did not make")


def proxies(data: bytes) -> None:
    """Whatever a proxy passes on, a request has an address and a scheme."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    first, _, second = data.partition(b"\n")
    names = (b"x-forwarded-for", b"forwarded", b"x-forwarded-proto")
    trusting = TrustProxies(app, [ip_network("10.0.0.0/8")])
    scope = {"type": "http", "client": ("10.0.0.1", 1), "scheme": "http"}
    for name in names:
        headers = [(name, first), (name, second)]
        _now(trusting({**scope, "headers": headers}, _never, _never))
        assert seen[-1]["scheme"] in ("http", "https")
        assert 0 < len(seen[-1]["client"][0]) < 64 + len(data)


async def _never(*_: Any) -> Any:
    raise AssertionError("nothing is received or sent here")


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (submission, batch, compressed, times, ranges, cursors, tokens, proxies)
}
