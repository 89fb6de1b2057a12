"""Bad inputs for every operation, kept as data: each gets the answer that stands beside it.

`bad_corpus.jsonl` has a line for each: who asks (`as`), what for (`op`, `path` for its first id,
`query`), with which body (`body`, or `hex` for bytes), and what comes of it (`status`, `code`).
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from iotflow.cli.operate import create_admin
from iotflow.settings import RateLimitSettings, Settings
from tests.api.conftest import PASSWORD, Account, serving
from tests.api.test_authorisation import API, RULES, World

CORPUS = [
    json.loads(line)
    for line in Path(__file__).with_name("bad_corpus.jsonl").read_text().splitlines()
]
MARK = "zqj7input"
"""Stands in what is sent wherever it is no name: no answer may have it."""
FORGED = {
    "Authorization": "Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiIxIn0.",
    "X-API-Key": f"iotd_{MARK}",
}


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    data_dir = tmp_path_factory.mktemp("corpus")
    settings = Settings.load(data_dir=data_dir, rate_limits=RateLimitSettings(enabled=False))
    await asyncio.to_thread(create_admin, "root", "root@example.com", PASSWORD, data_dir)
    async with serving(settings) as client:
        login = {"username": "root", "password": PASSWORD}
        session = (await client.post(f"{API}/auth/login", json=login)).json()
        admin = Account(session["user"]["id"], "root", "", session["access_token"], "")
        world = await World(client).build(admin)
        world.headers["forger"] = FORGED
        yield world


def address(world: World, bad: dict[str, Any]) -> tuple[str, str]:
    """Method and URL; ids that are not at fault are those of the owner's things."""
    method, path = world.operations[bad["op"]]
    if "path" in bad:
        before, _, rest = path.partition("{")
        path = before + bad["path"] + rest.partition("}")[2]
    for name, found in {**world.names, "key_id": 1, "token_id": 1}.items():
        path = path.replace(f"{{{name}}}", str(found))
    return method, f"{path}?{bad['query']}" if "query" in bad else path


def body_of(bad: dict[str, Any]) -> bytes:
    """Long bodies are written short: as how often they repeat, or how often the mark does."""
    body: str = bad.get("body", "") * bad.get("times", 1)
    return (body.replace("%s", MARK * bad["fill"]) if "fill" in bad else body).encode()


async def sent(world: World, bad: dict[str, Any]) -> httpx.Response:
    method, url = address(world, bad)
    content = bytes.fromhex(bad["hex"]) if "hex" in bad else body_of(bad)
    headers = dict(world.headers[bad["as"]]) | bad.get("headers", {})
    if "type" in bad:
        headers["Content-Type"] = bad["type"]
    return await world.client.request(method, url, headers=headers, content=content or None)


def test_the_corpus_covers_every_operation() -> None:
    assert {bad["op"] for bad in CORPUS} == RULES.keys()
    inputs = {json.dumps({key: bad[key] for key in bad if key != "name"}) for bad in CORPUS}
    assert len(inputs) == len(CORPUS) >= 200


@pytest.mark.parametrize("bad", CORPUS, ids=[f"{bad['op']}-{bad['name']}" for bad in CORPUS])
async def test_bad_input_is_explained_and_not_sent_back(world: World, bad: dict[str, Any]) -> None:
    answer = await sent(world, bad)
    assert answer.status_code == bad["status"], answer.text[:500]
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:iotflow:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]
    told = [*problem.get("errors", ()), *problem.get("rejected", ())]
    assert bad["code"] in {problem["code"], *(each["code"] for each in told)}
    assert MARK not in answer.text
    assert len(answer.content) < 4_000
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"]
