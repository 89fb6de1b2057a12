"""Bodies, headers and queries that are wrong, and what is said of each. None gives 500."""

import gzip
import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import pytest

from tests.api.conftest import DeviceUnderTest

SUBMIT, BATCH = "/api/v1/telemetry", "/api/v1/telemetry/batch"
OK = {"data": {"a": 1}}
START = 1_767_225_600_000


class Bad(NamedTuple):
    """A bad body for a submission or a batch, and the answer it gets."""

    name: str
    body: bytes | Callable[[], bytes]
    status: int
    code: str
    path: str = SUBMIT
    headers: Mapping[str, str] = MappingProxyType({})


def submission(**changes: Any) -> bytes:
    return json.dumps(OK | changes).encode()


def batch(*records: Any) -> bytes:
    return json.dumps({"records": records}).encode()


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def with_metadata(levels: int) -> bytes:
    return b'{"timestamp": %d, "data": {"a": 1}, "metadata": %b}' % (START, nested(levels))


BODIES = [
    Bad("nothing", b"", 400, "invalid_json"),
    Bad("not JSON", b"temperature=23", 400, "invalid_json"),
    Bad("half a body", b'{"data": {"a": 1}', 400, "invalid_json"),
    Bad("two bodies", b'{"data": {"a": 1}} {"data": {"a": 2}}', 400, "invalid_json"),
    Bad("single quotes", b"{'data': {'a': 1}}", 400, "invalid_json"),
    Bad("a leading zero", b'{"data": {"a": 01}}', 400, "invalid_json"),
    Bad("invalid UTF-8", b'{"data": {"a": "\xff\xfe"}}', 400, "invalid_json"),
    Bad("UTF-16", '{"data": {"a": 1}}'.encode("utf-16"), 400, "invalid_json"),
    Bad("NUL bytes", b"\0" * 100, 400, "invalid_json"),
    Bad("nested brackets", b"[" * 100_000, 400, "invalid_json"),
    Bad("nested data", b'{"data": {"a": ' + b'{"a":' * 50_000, 400, "invalid_json"),
    Bad("a list", b"[]", 422, "invalid_record"),
    Bad("a string", b'"text"', 422, "invalid_record"),
    Bad("null", b"null", 422, "invalid_record"),
    Bad("NaN alone", b"NaN", 422, "invalid_record"),
    Bad("no data", b"{}", 422, "invalid_data"),
    Bad("data null", submission(data=None), 422, "invalid_data"),
    Bad("data a list", submission(data=[1]), 422, "invalid_data"),
    Bad("data empty", submission(data={}), 422, "empty_data"),
    Bad("10,000 measurements", submission(data={f"m{n}": n for n in range(10_000)}), 422,
        "too_many_measurements"),
    Bad("257 measurements", submission(data={f"m{n}": n for n in range(257)}), 422,
        "too_many_measurements"),
    Bad("an unknown field", submission(device_id=1), 422, "unknown_field"),
    Bad("seconds", submission(timestamp=START // 1000), 422, "invalid_timestamp"),
    Bad("microseconds", submission(timestamp=START * 1000), 422, "invalid_timestamp"),
    Bad("a negative time", submission(timestamp=-1), 422, "invalid_timestamp"),
    Bad("a huge time", submission(timestamp=10**400), 422, "invalid_timestamp"),
    Bad("a float time", submission(timestamp=START + 0.5), 422, "invalid_timestamp"),
    Bad("a boolean time", submission(timestamp=True), 422, "invalid_timestamp"),
    Bad("a time without offset", submission(timestamp="2026-01-01T00:00:00"), 422,
        "invalid_timestamp"),
    Bad("a day", submission(timestamp="2026-01-01"), 422, "invalid_timestamp"),
    Bad("the 30th of February", submission(timestamp="2026-02-30T00:00:00Z"), 422,
        "invalid_timestamp"),
    Bad("a relative time", submission(timestamp="-24h"), 422, "invalid_timestamp"),
    Bad("an empty time", submission(timestamp=""), 422, "invalid_timestamp"),
    Bad("next year", submission(timestamp="2099-01-01T00:00:00Z"), 422, "timestamp_in_future"),
    Bad("before 1970", submission(timestamp="1969-12-31T23:59:59Z"), 422, "invalid_timestamp"),
    Bad("metadata a list", submission(metadata=[]), 422, "invalid_metadata"),
    Bad("NaN in metadata", b'{"data": {"a": 1}, "metadata": {"x": [NaN]}}', 422,
        "invalid_metadata"),
    Bad("1e400 in metadata", b'{"data": {"a": 1}, "metadata": {"x": {"y": -1e400}}}', 422,
        "invalid_metadata"),
    Bad("metadata too large", submission(metadata={"x": "y" * 20_000}), 422, "metadata_too_large"),
    Bad("metadata too deep", with_metadata(65), 422, "too_deep"),
    Bad("metadata much too deep", with_metadata(900), 422, "too_deep"),
    Bad("metadata without a floor", with_metadata(100_000), 400, "invalid_json"),
    Bad("a record too deep", lambda: b'{"records": [%b]}' % with_metadata(65), 422,
        "nothing_accepted", BATCH),
    Bad("a record without a floor", lambda: b'{"records": [%b]}' % with_metadata(100_000), 400,
        "invalid_json", BATCH),
    Bad("only NaN", b'{"data": {"a": NaN}}', 422, "nothing_accepted"),
    Bad("only 1e400", b'{"data": {"a": 1e400}}', 422, "nothing_accepted"),
    Bad("an endless integer", b'{"data": {"a": 1%b}}' % (b"0" * 10_000), 422, "nothing_accepted"),
    Bad("null value", submission(data={"a": None}), 422, "nothing_accepted"),
    Bad("list value", submission(data={"a": [1, 2]}), 422, "nothing_accepted"),
    Bad("object value", submission(data={"a": {"v": 1}}), 422, "nothing_accepted"),
    Bad("value with a stranger", submission(data={"a": {"value": 1, "u": "m"}}), 422,
        "nothing_accepted"),
    Bad("value in value", submission(data={"a": {"value": {"value": 1}}}), 422,
        "nothing_accepted"),
    Bad("a unit that is a number", submission(data={"a": {"value": 1, "unit": 5}}), 422,
        "nothing_accepted"),
    Bad("a long unit", submission(data={"a": {"value": 1, "unit": "m" * 33}}), 422,
        "nothing_accepted"),
    Bad("a long text", submission(data={"a": "x" * 1025}), 422, "nothing_accepted"),
    Bad("a text long in bytes", submission(data={"a": "ü" * 600}), 422, "nothing_accepted"),
    Bad("NUL in text", submission(data={"a": "x\0y"}), 422, "nothing_accepted"),
    Bad("half a surrogate", b'{"data": {"a": "\\ud800"}}', 422, "nothing_accepted"),
    Bad("half a surrogate as name", b'{"data": {"\\ud800": 1}}', 422, "nothing_accepted"),
    Bad("half a surrogate as field", b'{"data": {"a": 1}, "\\ud800": 1}', 422, "unknown_field"),
    Bad("half a surrogate in metadata", b'{"data": {"a": 1}, "metadata": {"x": "\\ud800"}}', 422,
        "invalid_metadata"),
    Bad("an empty name", submission(data={"": 1}), 422, "nothing_accepted"),
    Bad("a name with a space", submission(data={"a b": 1}), 422, "nothing_accepted"),
    Bad("a long name", submission(data={"a" * 65: 1}), 422, "nothing_accepted"),
    Bad("a name of a megabyte", submission(data={"a" * 1_000_000: 1}), 422, "nothing_accepted"),
    Bad("a foreign digit in a name", submission(data={"a٣": 1}), 422, "nothing_accepted"),
    Bad("a newline after a name", submission(data={"a\n": 1}), 422, "nothing_accepted"),
    Bad("over a mebibyte", b" " * 1_048_577, 413, "body_too_large"),
    Bad("gzip that is none", OK["data"] and b"plain", 400, "invalid_gzip",
        headers={"Content-Encoding": "gzip"}),
    Bad("half a gzip", lambda: gzip.compress(submission())[:-9], 400, "invalid_gzip",
        headers={"Content-Encoding": "gzip"}),
    Bad("a gzip bomb", lambda: gzip.compress(b" " * 50_000_000), 413, "body_too_large",
        headers={"Content-Encoding": "gzip"}),
    Bad("gzip members that add up", lambda: gzip.compress(b" " * 600_000) * 2, 413,
        "body_too_large", headers={"Content-Encoding": "gzip"}),
    Bad("brotli", b"x", 415, "unsupported_media_type", headers={"Content-Encoding": "br"}),
    Bad("a batch that is a list", json.dumps([OK]).encode(), 422, "invalid_batch", BATCH),
    Bad("a batch without records", b"{}", 422, "invalid_batch", BATCH),
    Bad("records an object", b'{"records": {}}', 422, "invalid_batch", BATCH),
    Bad("no records", batch(), 422, "empty_batch", BATCH),
    Bad("a stranger beside records", b'{"records": [{}], "x": 1}', 422, "unknown_field", BATCH),
    Bad("only bad records", batch(1, {}, OK), 422, "nothing_accepted", BATCH),
    Bad("a bomb for a batch", lambda: gzip.compress(b" " * 80_000_000), 413, "body_too_large",
        BATCH, {"Content-Encoding": "gzip"}),
    Bad("empty lines", b"\n\n\n", 422, "empty_batch", BATCH,
        {"Content-Type": "application/x-ndjson"}),
]  # fmt: skip


@pytest.mark.parametrize("bad", BODIES, ids=lambda bad: bad.name)
async def test_bad_bodies(client: httpx.AsyncClient, device: DeviceUnderTest, bad: Bad) -> None:
    content = bad.body if isinstance(bad.body, bytes) else bad.body()
    answer = await client.post(
        bad.path, content=content, headers=device.headers | dict(bad.headers)
    )
    problem = answer.json()
    codes = {problem["code"], *(error["code"] for error in problem.get("errors", ()))}
    assert answer.status_code == bad.status, answer.text[:500]
    assert bad.code in codes, answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 4_000, "the input is not sent back"
    latest = await client.get(f"{SUBMIT}/{device.id}/latest", headers=device.headers)
    assert latest.status_code == 404, "nothing was stored"


QUERIES = [
    ("?start_time=yesterday", "invalid_time"),
    ("?start_time=1767225600", "invalid_time"),
    ("?start_time=2026-01-01T00:00:00", "invalid_time"),
    ("?start_time=2026-13-01T00:00:00Z", "invalid_time"),
    ("?start_time=now", "empty_range"),
    ("?start_time=-1h&end_time=-2h", "empty_range"),
    ("?start_time=-400d", "range_too_long"),
    ("?start_time=-99999999999w", "invalid_time"),
    ("?start_time=" + "9" * 60, "invalid_time"),
    ("?start_time=" + "9" * 100, "string_too_long"),
    ("?limit=0", "greater_than_equal"),
    ("?limit=10001", "less_than_equal"),
    ("?limit=-1", "greater_than_equal"),
    ("?limit=many", "int_parsing"),
    ("?limit=1e3", "int_parsing"),
    ("?order=up", "literal_error"),
    ("?measurement=1st", "string_pattern_mismatch"),
    ("?measurement=", "string_pattern_mismatch"),
    ("?measurment=temperature", "unknown_field"),
    ("?cursor=", "invalid_cursor"),
    ("?cursor=AAAA", "invalid_cursor"),
    ("?cursor=%00", "invalid_cursor"),
    ("?cursor=%F0%9F%98%80", "invalid_cursor"),
    ("/aggregated", "missing"),
    ("/aggregated?field=a", "missing"),
    ("/aggregated?field=a&window=1h", "missing"),
    ("/aggregated?field=a&aggregation=mean", "missing"),
    ("/aggregated?field=a&aggregation=median&window=1h", "enum"),
    ("/aggregated?field=a&aggregation=mean&window=2w", "invalid_window"),
    ("/aggregated?field=a&aggregation=mean&window=0m", "invalid_window"),
    ("/aggregated?field=a&aggregation=mean&window=1m&start_time=-30d", "too_many_windows"),
    ("/aggregated?field=a&aggregation=mean&window=1h&timezone=Mars", "invalid_timezone"),
    ("/aggregated?field=a&aggregation=mean&window=1h&timezone=../etc", "invalid_timezone"),
    ("/aggregated?field=a&points=2", "greater_than_equal"),
    ("/aggregated?field=a&points=10001", "less_than_equal"),
    ("/aggregated?field=a&points=50&window=1h", "conflicting"),
    ("/aggregated?field=a&aggregation=mean&window=1h&fill=zero", "literal_error"),
    ("/latest?x=1", "unknown_field"),
]


@pytest.mark.parametrize(("query", "code"), QUERIES)
async def test_bad_queries(
    client: httpx.AsyncClient, device: DeviceUnderTest, query: str, code: str
) -> None:
    answer = await client.get(f"{SUBMIT}/{device.id}{query}", headers=device.headers)
    assert answer.status_code == 422, answer.text
    assert code in {error["code"] for error in answer.json()["errors"]}, answer.text


@pytest.mark.parametrize("device_id", ["0", "-1", "abc", "9" * 30, "1.5", "%00"])
async def test_bad_device_ids(
    client: httpx.AsyncClient, device: DeviceUnderTest, device_id: str
) -> None:
    for path in ("", "/latest", "/aggregated?field=a&points=5"):
        answer = await client.get(f"{SUBMIT}/{device_id}{path}", headers=device.headers)
        assert answer.status_code == 422


@pytest.mark.parametrize(
    "key",
    ["", "x", "iotd_", "iotd_" + "A" * 43, "iotd_" + "A" * 42, "iotp_" + "A" * 43, "A" * 5000,
     "iotd_" + "ü" * 43],
)  # fmt: skip
async def test_keys_that_open_nothing(client: httpx.AsyncClient, key: str) -> None:
    for method, path in (("POST", SUBMIT), ("POST", BATCH), ("GET", "/api/v1/devices/status")):
        answer = await client.request(
            method, path, json=OK, headers={b"X-API-Key": key.encode("latin-1", "replace")}
        )
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"]
        assert len(key) < 5 or key not in answer.text


async def test_a_cursor_of_another_device_or_query_is_refused(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    records = [{"timestamp": START + n, "data": {"a": n}} for n in range(3)]
    await client.post(BATCH, json={"records": records}, headers=device.headers)
    day = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-02T00:00:00Z"}
    url = f"{SUBMIT}/{device.id}"
    page = await client.get(url, params=day | {"limit": "1"}, headers=device.headers)
    cursor = {"cursor": page.json()["next_cursor"]}
    for change in ({"order": "asc"}, {"measurement": "a"}, {"end_time": "now"}):
        answer = await client.get(url, params=day | cursor | change, headers=device.headers)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["code"] == "invalid_cursor"


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "x/y;z", "application/xml"])
async def test_sloppy_content_types_are_read_as_json(
    client: httpx.AsyncClient, device: DeviceUnderTest, content_type: str | None
) -> None:
    headers = device.headers | ({} if content_type is None else {"Content-Type": content_type})
    answer = await client.post(SUBMIT, content=submission(), headers=headers)
    assert answer.status_code == 201


async def test_what_the_framework_refuses_is_a_problem_too(client: httpx.AsyncClient) -> None:
    missing = await client.get("/api/v1/nothing/here")
    wrong_method = await client.put("/api/v1/auth/login")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong_method.status_code, wrong_method.json()["code"]) == (405, "method_not_allowed")
    broken = await client.post(
        "/api/v1/auth/login", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert (broken.status_code, broken.json()["code"]) == (400, "invalid_json")
    form = await client.post("/api/v1/auth/login", data={"username": "a", "password": "b"})
    assert (form.status_code, form.json()["code"]) == (415, "unsupported_media_type")
    nan = await client.post(
        "/api/v1/auth/login",
        content=b'{"username": NaN, "password": Infinity}',
        headers={"Content-Type": "application/json"},
    )
    assert nan.status_code == 422
    large = await client.post("/api/v1/auth/login", json={"username": "a" * 2_000_000})
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")
    for answer in (missing, wrong_method, broken, form, nan, large):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-123", True), ("a" * 129, False), ("a b", False), ("<x>", False)]
)
async def test_a_sane_request_id_is_kept(
    client: httpx.AsyncClient, device: DeviceUnderTest, sent: str, kept: bool
) -> None:
    headers = device.headers | {"X-Request-ID": sent}
    hot = await client.post(SUBMIT, json=OK, headers=headers)
    plain = await client.get("/", headers=headers)
    for answer in (hot, plain):
        assert (answer.headers["x-request-id"] == sent) is kept
