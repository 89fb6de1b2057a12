"""What browsers are told, on every answer: of the hot routes, the framework's, and of problems."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.settings import CorsSettings, RateLimitSettings, ServerSettings, Settings
from tests.api.conftest import Account, DeviceUnderTest, create_account, create_device, serving

API = "/api/v1"
PAGE = "https://dashboard.example"
HSTS = "strict-transport-security"
NO_PAGE = "default-src 'none'; frame-ancestors 'none'"
SUBMISSION = {"data": {"a": 1}}


async def everything(client: httpx.AsyncClient, device: DeviceUnderTest) -> list[httpx.Response]:
    """An answer of each kind."""
    key, token = device.headers, device.owner.headers
    telemetry = f"{API}/telemetry"
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", telemetry, {"json": SUBMISSION, "headers": key}),
        ("POST", telemetry, {"content": b"{", "headers": key}),
        ("POST", telemetry, {}),
        ("GET", f"{telemetry}/{device.id}", {"headers": key}),
        ("GET", f"{telemetry}/{device.id}", {"headers": key | {"Accept": "text/csv"}}),
        ("GET", f"{telemetry}/{device.id}/latest", {"headers": key}),
        ("GET", f"{API}/devices/credentials", {"headers": key}),
        ("GET", f"{API}/devices/{device.id}", {"headers": token}),
        ("GET", f"{API}/users/me", {}),
        ("POST", f"{API}/auth/login", {"content": b"{"}),
        ("POST", f"{API}/auth/login", {"content": b"x" * 2_000_000}),
        ("PUT", f"{API}/auth/login", {}),
        ("GET", "/nothing", {}),
        ("GET", "/", {}),
        ("GET", "/metrics", {}),
        ("GET", "/openapi.json", {}),
        ("GET", "/docs", {}),
        ("GET", "/docs/oauth2-redirect", {}),
        ("GET", "/redoc", {}),
        ("GET", "/static-offline-docs/swagger-ui.css", {}),
    ]
    return [await client.request(method, path, **options) for method, path, options in asked]


async def test_every_answer_says_what_it_is_not_for(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    for answer in await everything(client, device):
        where = f"{answer.request.method} {answer.url} {answer.status_code}"
        pairs = [name for name, _ in answer.headers.multi_items()]
        assert len(pairs) == len(set(pairs)), where
        assert answer.headers["x-content-type-options"] == "nosniff", where
        assert answer.headers["referrer-policy"] == "no-referrer", where
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], where
        assert HSTS not in answer.headers, where
        if answer.url.path.startswith(API):
            assert answer.headers["content-security-policy"] == NO_PAGE, where
            kept = "private, no-cache" if "etag" in answer.headers else "no-store"
            assert answer.headers["cache-control"] == kept, where


@pytest.mark.parametrize("path", ["/docs", "/docs/oauth2-redirect", "/redoc"])
async def test_a_page_runs_its_own_scripts_and_no_others(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    scripts = policy["script-src"].split()
    assert "'unsafe-inline'" not in scripts
    assert "'unsafe-eval'" not in scripts
    assert policy["default-src"] == "'none'"
    inline = answer.text.count("<script>")
    assert sum(each.startswith("'sha256-") for each in scripts) == inline
    assert "http://" not in policy["script-src"] + policy["connect-src"]


@pytest.fixture(scope="module")
async def behind_proxies(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("proxied"),
        rate_limits=RateLimitSettings(enabled=False),
        trusted_proxies="127.0.0.0/8",
        server=ServerSettings(hsts_s=600),
    )
    async with serving(settings) as client:
        yield client


@pytest.mark.parametrize(
    ("header", "value", "secure"),
    [
        ("X-Forwarded-Proto", "https", True),
        ("X-Forwarded-Proto", "HTTPS", True),
        ("X-Forwarded-Proto", "http", False),
        ("X-Forwarded-Proto", "https, http", False),
        ("X-Forwarded-Proto", "gopher", False),
        ("Forwarded", "for=203.0.113.5;proto=https", True),
        ("Forwarded", "for=203.0.113.5;proto=https, for=10.0.0.1", False),
    ],
)
async def test_what_came_by_https_shall_come_so_again(
    behind_proxies: httpx.AsyncClient, header: str, value: str, secure: bool
) -> None:
    for path in ("/", "/nothing", f"{API}/devices/credentials", f"{API}/telemetry/1/latest"):
        answer = await behind_proxies.get(path, headers={header: value})
        assert (answer.headers.get(HSTS) == "max-age=600") is secure, path


async def test_strangers_do_not_say_how_they_came(client: httpx.AsyncClient) -> None:
    for path in ("/", f"{API}/devices/credentials"):
        answer = await client.get(path, headers={"X-Forwarded-Proto": "https"})
        assert HSTS not in answer.headers


async def test_https_itself_is_enough_unless_it_is_switched_off(data_dir: Path) -> None:
    for seconds, expected in ((60, "max-age=60"), (0, None)):
        settings = Settings.load(data_dir=data_dir, server=ServerSettings(hsts_s=seconds))
        async with serving(settings) as client:
            for path in ("/", f"{API}/devices/credentials"):
                answer = await client.get(f"https://service{path}")
                assert answer.headers.get(HSTS) == expected


async def test_by_default_no_page_may_call(
    client: httpx.AsyncClient, device: DeviceUnderTest
) -> None:
    origin = {"Origin": PAGE}
    hot = await client.post(f"{API}/telemetry", json=SUBMISSION, headers=device.headers | origin)
    slow = await client.get("/", headers=origin)
    asked = await client.options(
        f"{API}/telemetry", headers=origin | {"Access-Control-Request-Method": "POST"}
    )
    assert asked.status_code == 405
    for answer in (hot, slow, asked):
        assert not any(name.startswith("access-control-") for name in answer.headers)


@pytest.fixture(scope="module")
async def with_pages(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    settings = Settings.load(
        data_dir=tmp_path_factory.mktemp("cors"),
        cors=CorsSettings(origins=(PAGE, "http://localhost:3000"), max_age_s=60),
    )
    async with serving(settings) as client:
        yield client


@pytest.fixture(scope="module")
async def owner_of_pages(with_pages: httpx.AsyncClient) -> Account:
    return await create_account(with_pages)


@pytest.mark.parametrize("path", [f"{API}/telemetry", f"{API}/devices/1", "/health"])
async def test_a_named_page_may_ask_for_every_call(
    with_pages: httpx.AsyncClient, path: str
) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "authorization, x-api-key, if-match, content-encoding",
    }
    answer = await with_pages.options(path, headers=asked)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "PATCH" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-max-age"] == "60"
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-content-type-options"] == "nosniff"
    for change in (
        {"Origin": "https://evil.example"},
        {"Origin": "https://dashboard.example.evil.example"},
        {"Origin": "null"},
        {"Access-Control-Request-Headers": "x-made-up"},
        {"Access-Control-Request-Method": "TRACE"},
    ):
        refused = await with_pages.options(path, headers=asked | change)
        assert refused.status_code == 400
        if "Origin" in change:
            assert "access-control-allow-origin" not in refused.headers


async def test_a_named_page_reads_answers_and_their_headers(
    with_pages: httpx.AsyncClient, owner_of_pages: Account
) -> None:
    device = await create_device(with_pages, owner_of_pages)
    submit = f"{API}/telemetry"
    for origin, may in ((PAGE, True), ("https://evil.example", False)):
        headers = {"Origin": origin}
        hot = await with_pages.post(submit, json=SUBMISSION, headers=device.headers | headers)
        slow = await with_pages.get(f"{API}/users/me", headers=owner_of_pages.headers | headers)
        wrong = await with_pages.get(f"{API}/users/me", headers=headers)
        broken = await with_pages.post(submit, content=b"{", headers=device.headers | headers)
        assert [a.status_code for a in (hot, slow, wrong, broken)] == [201, 200, 401, 400]
        for answer in (hot, slow, wrong, broken):
            assert (answer.headers.get("access-control-allow-origin") == PAGE) is may
            shown = answer.headers["access-control-expose-headers"].split(", ")
            assert {"ETag", "RateLimit", "Retry-After", "X-Cache", "X-Next-Cursor"} <= set(shown)
            assert "Origin" in answer.headers.get("vary", "") or not may
