"""What an operator does on the command line is in the event log, as what others do is."""

import asyncio
from pathlib import Path

import pytest

from iotflow.cli.operate import COMMAND_LINE, create_admin, invite, reset_password
from iotflow.domain.events import Event
from iotflow.domain.times import TimeRange
from iotflow.errors import ConflictError
from iotflow.settings import Settings
from iotflow.stores.events.protocol import EventQuery
from iotflow.stores.events.sql import SqlEventStore
from tests.api.conftest import PASSWORD, serving

API = "/api/v1"


async def logged(data_dir: Path) -> list[Event]:
    """All that is in the event log, oldest first."""
    store = SqlEventStore(Settings.load(data_dir=data_dir).store_url("events"))
    await store.open()
    try:
        found, _ = await store.query(EventQuery(TimeRange(0, 2**53), 100))
        return found[::-1]
    finally:
        await store.close()


async def test_what_was_done_is_there_and_by_whom(
    data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    await asyncio.to_thread(reset_password, "root", "a brand new password", data_dir)
    await asyncio.to_thread(invite, 1, data_dir)
    said = capsys.readouterr()
    events = await logged(data_dir)
    assert [(event.event_type, event.user_id, event.details) for event in events] == [
        ("user.registered", 1, {"username": "root", "role": "admin", "by": COMMAND_LINE}),
        ("user.password_changed", 1, {"by": COMMAND_LINE}),
        ("invitation.created", None, {"invitation_id": "1", "by": COMMAND_LINE}),
    ]
    assert not said.err
    code = said.out.splitlines()[-1]
    assert all(secret not in str(events) for secret in (code, PASSWORD, "a brand new password"))


async def test_an_account_finds_there_that_its_password_was_reset(data_dir: Path) -> None:
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    async with serving(Settings.load(data_dir=data_dir)) as client:
        await asyncio.to_thread(reset_password, "root", "a brand new password", data_dir)
        login = {"username": "root", "password": "a brand new password"}
        session = (await client.post(f"{API}/auth/login", json=login)).json()
        bearer = {"Authorization": f"Bearer {session['access_token']}"}
        query = {"event_type": "user.password_changed"}
        found = (await client.get(f"{API}/events", params=query, headers=bearer)).json()["items"]
    assert [each["details"] for each in found] == [{"by": COMMAND_LINE}]


async def test_what_was_not_done_is_not_there(data_dir: Path) -> None:
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    with pytest.raises(ConflictError):
        await asyncio.to_thread(create_admin, "root", "other@example.com", PASSWORD, data_dir)
    assert len(await logged(data_dir)) == 1


async def test_an_event_log_that_is_away_keeps_nobody_out(
    data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTFLOW_EVENTS__URL", "postgresql://nobody:x@127.0.0.1:1/none")
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    said = capsys.readouterr()
    assert said.out == "Created admin root (user 1).\n"
    assert said.err.startswith("iotflow: done, but not logged as user.registered. ")
    assert said.err.count("\n") == 1
