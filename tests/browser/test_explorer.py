"""The API explorer as a person uses it: from an empty service to a value that is read back."""

import json
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Watched
from tests.process.conftest import Served

pytestmark = pytest.mark.tools


class Explorer:
    """/docs, by what a person does there."""

    def __init__(self, watched: Watched, url: str) -> None:
        self._page = watched.page
        self._page.goto(f"{url}/docs")
        expect(self._page.locator(".opblock").first).to_be_visible()

    def call(self, operation: str, body: Any = None, **parameters: str) -> dict[str, Any]:
        """Open an operation, fill it in, execute it; the answer that the page shows."""
        block = self._page.locator(f'.opblock[id$="-{operation}"]')
        if "is-open" not in (block.get_attribute("class") or ""):
            block.locator(".opblock-summary-control").click()
        for name, value in parameters.items():
            block.locator(f'tr[data-param-name="{name}"] input').fill(value)
        if body is not None:
            block.locator("textarea.body-param__text").fill(json.dumps(body))
        block.get_by_role("button", name="Execute").click()
        return self._answer(block)

    def _answer(self, block: Locator) -> dict[str, Any]:
        live = block.locator(".live-responses-table")
        expect(live.locator(".response-col_status").last).to_be_visible()
        block.locator(".responses-inner h4, .request-url").first.scroll_into_view_if_needed()
        shown = live.locator(".highlight-code pre, pre.microlight").first.inner_text()
        answer: dict[str, Any] = json.loads(shown)
        return answer

    def authorize(self, scheme: str, value: str) -> None:
        """Press Authorize and fill in one of the schemes."""
        self._page.locator(".auth-wrapper .authorize").first.click()
        form = self._page.locator(
            ".auth-container", has=self._page.locator(f"code:text-is('{scheme}')")
        )
        form.locator("input").fill(value)
        form.get_by_role("button", name="Apply credentials").click()
        expect(form.get_by_role("button", name="Remove authorization")).to_be_visible()

    def close_dialog(self) -> None:
        self._page.locator(".modal-ux .btn-done").first.click()


def test_from_nothing_to_a_value_read_back(service: Served, watched: Watched) -> None:
    explorer = Explorer(watched, service.url)
    watched.shot("docs-1-opened")

    # These examples are sent as they stand.
    user = explorer.call("register")
    assert user["username"] == "ada"
    session = explorer.call("login")
    watched.shot("docs-2-signed-in")
    explorer.authorize("Bearer", session["access_token"])
    watched.shot("docs-3-authorized")
    explorer.close_dialog()

    registered = explorer.call("register_device", {"name": "greenhouse-1"})
    watched.shot("docs-4-device")
    explorer.authorize("DeviceKey", registered["api_key"])
    explorer.close_dialog()

    measured = {"data": {"temperature": 23.5}, "timestamp": "2026-01-31T14:30:00Z"}
    receipt = explorer.call("submit_telemetry", measured)
    assert receipt["accepted"] == 1
    device_id = registered["device"]["id"]
    latest = explorer.call("device_latest", device_id=str(device_id))
    watched.shot("docs-5-read-back")
    assert latest["data"] == {"temperature": 23.5}

    read = httpx.get(
        f"{service.url}/api/v1/telemetry/{device_id}/latest",
        headers={"X-API-Key": registered["api_key"]},
        timeout=10,
    )
    assert read.json() == latest


def test_the_reference_is_drawn(service: Served, watched: Watched) -> None:
    watched.page.goto(f"{service.url}/redoc")
    expect(watched.page.get_by_role("heading", name="Submit measurements").first).to_be_visible()
    watched.shot("redoc")


class SignIn:
    """The dialog's form for name and password."""

    def __init__(self, page: Page) -> None:
        self._dialog = page.locator(".auth-wrapper .authorize").first
        self.form = page.locator(".auth-container", has=page.locator("h4", has_text="SignIn"))
        self.authorized = self.form.get_by_role("button", name="Remove authorization")

    def open(self) -> None:
        self._dialog.click()

    def send(self, username: str, password: str) -> None:
        """Name and password alone, as the form says."""
        self.form.locator("#oauth_username").fill(username)
        self.form.locator("#oauth_password").fill(password)
        self.form.get_by_role("button", name="Apply").click()


def test_signing_in_within_the_dialog(service: Served, watched: Watched) -> None:
    password = "nine white swans at dawn"
    body = {"username": "grace", "email": "grace@example.com", "password": password}
    assert httpx.post(f"{service.url}/api/v1/auth/register", json=body, timeout=10).is_success
    explorer, sign_in = Explorer(watched, service.url), SignIn(watched.page)

    sign_in.open()
    sign_in.send("grace", "not the password")
    told = sign_in.form.locator(".errors")
    expect(told).to_contain_text("error: invalid_grant")
    expect(told).to_contain_text("Username or password is wrong.")
    watched.shot("docs-6-sign-in-refused")
    (complaint,) = watched.complaints  # the browser's own, of any answer with 400
    assert "400 (Bad Request)" in complaint
    watched.complaints.clear()

    sign_in.send("grace", password)
    expect(sign_in.authorized).to_be_visible()
    watched.shot("docs-7-signed-in")
    explorer.close_dialog()
    assert explorer.call("me")["username"] == "grace"

    kept = watched.page.evaluate("localStorage.getItem('authorized')")
    assert "access_token" in kept
    for secret in (password, "iotr_"):
        assert secret not in kept, "it would outlive the page in the browser's storage"
    again = Explorer(watched, service.url)
    assert again.call("me")["username"] == "grace", "a reload signs nobody out"
