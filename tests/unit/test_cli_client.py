"""The client of the commands: retries, what it says of failures, and what becomes of batches."""

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from iotflow.cli.client import (
    ApiClient,
    Credentials,
    RefusedError,
    ServerUnreachableError,
    base_url,
)
from iotflow.cli.importing.records import Record
from iotflow.cli.importing.sending import Sender
from iotflow.cli.retrying import Retrying, StillLimitedError, retry_after_s
from iotflow.errors import ConfigurationError
from tests.process.conftest import free_port

Answer = tuple[int, dict[str, str], Any]
Handler = Callable[[str, bytes], Answer]


class Script:
    """A server that answers as it is told, and remembers what came."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""


@contextmanager
def serving(handler: Handler) -> Iterator[Script]:
    script = Script(handler)

    class Http(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            script.requests.append((self.path, dict(self.headers), body))
            status, headers, document = script.handler(self.path, body)
            raw = document if isinstance(document, bytes) else json.dumps(document).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
    script.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield script
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


def retrying(clock: Clock, patience_s: float = 60.0) -> Retrying:
    return Retrying(
        "http://x",
        patience_s,
        lambda why, seconds: None,
        sleep=clock.sleep,
        now=lambda: clock.now_s,
        jitter=lambda: 1.0,
    )


def answering(*answers: httpx.Response | Exception) -> Callable[[], httpx.Response]:
    left = iter(answers)

    def send() -> httpx.Response:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return send


def limited(retry_after: str = "7") -> httpx.Response:
    return httpx.Response(429, headers={"Retry-After": retry_after}, json={"detail": "Too many."})


class TestRetrying:
    def test_pauses_grow_until_it_works(self) -> None:
        clock = Clock()
        broken = httpx.ConnectError("refused")
        send = answering(broken, broken, httpx.Response(503), httpx.Response(201))
        assert retrying(clock).call(send).status_code == 201
        assert clock.slept == [0.5, 1.0, 2.0]

    def test_retry_after_is_honoured(self) -> None:
        clock = Clock()
        busy = httpx.Response(503, headers={"Retry-After": "9"})
        send = answering(limited(), busy, limited("2"), httpx.Response(201))
        assert retrying(clock).call(send).status_code == 201
        assert clock.slept == [7.0, 9.0, 2.0]

    def test_patience_ends(self) -> None:
        clock = Clock()
        with pytest.raises(ServerUnreachableError, match="cannot be reached"):
            retrying(clock, 30).call(answering(*[httpx.ConnectError("refused")] * 100))
        assert 20 < clock.now_s <= 30

    def test_a_server_that_only_fails_is_told_with_its_reason(self) -> None:
        answers = [httpx.Response(503, json={"detail": "The store is not available."})] * 100
        with pytest.raises(ServerUnreachableError, match="503: The store is not available"):
            retrying(Clock(), 30).call(answering(*answers))

    def test_endless_limits_end(self) -> None:
        clock = Clock()
        with pytest.raises(StillLimitedError):
            retrying(clock).call(answering(*[limited()] * 10), 3)
        assert clock.slept == [7.0, 7.0]

    def test_nobody_waits_for_an_hour(self) -> None:
        clock = Clock()
        with pytest.raises(RefusedError, match="3600 s"):
            retrying(clock).call(answering(limited("3600")))
        assert not clock.slept

    def test_other_answers_are_handed_on(self) -> None:
        assert retrying(Clock()).call(answering(httpx.Response(404))).status_code == 404

    def test_retry_after_may_be_a_date(self) -> None:
        later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
        assert 25 < retry_after_s(later) <= 30
        assert [retry_after_s(each) for each in ("", "soon", "-1", "2")] == [0, 0, 0, 2]


class TestClient:
    @pytest.mark.parametrize(
        "url", ["", "localhost:8000", "ftp://x", "http://", "http://x:y", "http://x:99999"]
    )
    def test_what_is_no_address_is_refused(self, url: str) -> None:
        with pytest.raises(ConfigurationError, match="--url"):
            base_url(url)

    def test_of_several_credentials_the_most_personal_counts(self) -> None:
        assert Credentials("k", "t").headers() == {"Authorization": "Bearer t"}
        assert Credentials("k").headers() == {"X-API-Key": "k"}
        assert Credentials("k", "t", "u").headers() == {}
        with pytest.raises(ConfigurationError, match="--api-key"):
            Credentials().headers()
        with pytest.raises(ConfigurationError, match="--api-key"):
            Credentials("kéy\n").headers()

    def test_secrets_do_not_show(self) -> None:
        assert "secret" not in repr(Credentials("secret", "secret", "u", "secret"))

    def test_nobody_at_the_address(self) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        with (
            ApiClient(url, Credentials("k")) as client,
            pytest.raises(ServerUnreachableError, match=rf"^{url} cannot be reached .*--url"),
        ):
            client.call("GET", "/devices/status")

    @pytest.mark.parametrize(
        ("answer", "said"),
        [
            ((401, {}, {"detail": "Unknown key."}), "401: Unknown key. Check --api-key"),
            ((404, {}, b"<html>not here</html>"), "is this IoTFlow"),
            ((200, {}, b"<html>hello</html>"), "not IoTFlow"),
            ((200, {}, [1]), "not IoTFlow"),
        ],
    )
    def test_other_answers_are_told_in_one_line(self, answer: Answer, said: str) -> None:
        with (
            serving(lambda path, body: answer) as script,
            ApiClient(script.url, Credentials("k")) as client,
            pytest.raises((RefusedError, ServerUnreachableError)) as raised,
        ):
            client.call("GET", "/devices/status")
        assert said in raised.value.message
        assert "\n" not in raised.value.message

    def test_a_user_is_signed_in_again_when_the_token_expires(self) -> None:
        tokens = iter(["old", "new"])

        def handler(path: str, body: bytes) -> Answer:
            if path.endswith("/auth/login"):
                return 200, {}, {"access_token": next(tokens)}
            authorization = script.requests[-1][1]["Authorization"]
            return (401, {}, {}) if authorization == "Bearer old" else (200, {}, {"ok": True})

        user = Credentials(username="u", password="p")
        with serving(handler) as script, ApiClient(script.url, user) as client:
            assert client.call("GET", "/users/me") == {"ok": True}
            assert client.call("GET", "/users/me") == {"ok": True}
        assert [path.rpartition("/")[2] for path, _, _ in script.requests] == [
            "login", "me", "login", "me", "me",
        ]  # fmt: skip


def records(count: int) -> list[Record]:
    return [
        Record(n + 2, f"t{n}", n, {"a": n}, b'{"timestamp":%d,"data":{"a":%d}}' % (n, n))
        for n in range(count)
    ]


@contextmanager
def sending(handler: Handler, patience_s: float = 5) -> Iterator[tuple[Script, Sender]]:
    with serving(handler) as script, ApiClient(script.url, Credentials("k")) as client:
        quick = Retrying(script.url, patience_s, lambda why, s: None, sleep=lambda s: None)
        yield script, Sender(client, quick)


def sent(body: bytes) -> list[int]:
    return [record["timestamp"] for record in json.loads(gzip.decompress(body))["records"]]


class TestSender:
    def test_rejections_are_traced_to_their_lines(self) -> None:
        refusals = [
            {"measurement": "a", "code": "not_finite", "message": "m", "index": 1},
            {"measurement": None, "code": "timestamp_in_future", "message": "n", "index": 3},
        ]
        with sending(lambda path, body: (207, {}, {"accepted": 2, "rejected": refusals})) as (
            script,
            sender,
        ):
            outcome = sender.send(records(4))
        assert outcome.accepted == 2
        found = [(each.line, each.time, each.measurement, each.code) for each in outcome.rejected]
        assert found == [
            (3, "t1", "a", "not_finite"),
            (5, "t3", None, "timestamp_in_future"),
        ]
        assert script.requests[0][1]["Content-Encoding"] == "gzip"

    def test_nothing_accepted_is_no_reason_to_stop(self) -> None:
        refusals = [{"measurement": "a", "code": "not_finite", "message": "m", "index": 0}]
        problem = {"detail": "None.", "code": "nothing_accepted", "accepted": 0}
        with sending(lambda path, body: (422, {}, problem | {"rejected": refusals})) as (_, sender):
            outcome = sender.send(records(1))
        assert (outcome.accepted, len(outcome.rejected)) == (0, 1)

    @pytest.mark.parametrize("status", [400, 401, 403, 422])
    def test_a_refusal_of_everything_stops_it(self, status: int) -> None:
        with (
            sending(lambda path, body: (status, {}, {"detail": "No."})) as (script, sender),
            pytest.raises(RefusedError, match=f"{status}: No"),
        ):
            sender.send(records(2))
        assert len(script.requests) == 1

    def test_what_is_too_large_goes_in_parts_down_to_the_row(self) -> None:
        def handler(path: str, body: bytes) -> Answer:
            times = sent(body)
            if len(times) > 2 or 3 in times:
                return 413, {}, {"detail": "Too large."}
            return 201, {}, {"accepted": len(times), "rejected": []}

        with sending(handler) as (_, sender):
            outcome = sender.send(records(9))
        assert outcome.accepted == 8
        assert [(each.line, each.code) for each in outcome.rejected] == [(5, "body_too_large")]

    def test_a_batch_larger_than_the_rate_limit_goes_in_parts(self) -> None:
        def handler(path: str, body: bytes) -> Answer:
            times = sent(body)
            if len(times) > 3:
                return 429, {"Retry-After": "1"}, {"detail": "Too many."}
            return 201, {}, {"accepted": len(times), "rejected": []}

        with sending(handler) as (_, sender):
            assert sender.send(records(10)).accepted == 10

    def test_what_was_not_answered_is_sent_again(self) -> None:
        answers = iter([(503, {}, {}), (502, {}, b"bad gateway")])

        def handler(path: str, body: bytes) -> Answer:
            return next(answers, (201, {}, {"accepted": len(sent(body)), "rejected": []}))

        with sending(handler) as (script, sender):
            assert sender.send(records(3)).accepted == 3
        assert [sent(body) for _, _, body in script.requests] == [[0, 1, 2]] * 3
