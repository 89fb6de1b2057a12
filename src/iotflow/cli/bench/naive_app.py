"""The 'before' of the comparison: everything in PostgreSQL, one transaction a request.

It is what the guide calls 'PostgreSQL only', written as a good newcomer writes it: a pool, prepared
statements, an index for each query, one statement for all points, the commit before the answer. It
caches nothing and writes nothing later. It answers at IoTFlow's paths, in the shapes that the
benchmark needs; its tables are made by `naive_tables`.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import asyncpg
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Request
from pydantic import BaseModel

from iotflow.stores.postgres import connect_arguments

if TYPE_CHECKING:
    Pool = asyncpg.Pool[Any]
else:
    Pool = asyncpg.Pool

URL_VARIABLE, SCHEMA_VARIABLE = "BENCH_POSTGRES_URL", "BENCH_POSTGRES_SCHEMA"
POOL_SIZE = 20

KEY = """SELECT d.id, d.user_id, d.name, d.status FROM api_keys AS k
JOIN devices AS d ON d.id = k.device_id WHERE k.api_key = $1"""
_POINTS = """INSERT INTO telemetry (device_id, timestamp, measurement_name, value)
SELECT $1, $2, name, value FROM unnest($3::text[], $4::float8[]) AS given (name, value)"""
_EVENT = """INSERT INTO events (event_type, device_id, user_id, timestamp, measurements)
VALUES ('telemetry.submitted', $1, $2, $3, $4)"""
_SEEN = "UPDATE devices SET last_seen = $2 WHERE id = $1"
_LATEST = """SELECT DISTINCT ON (measurement_name) measurement_name, value, timestamp
FROM telemetry WHERE device_id = $1 ORDER BY measurement_name, timestamp DESC"""
_HISTORY = """SELECT timestamp, measurement_name, value FROM telemetry
WHERE device_id = $1 AND timestamp >= $2 ORDER BY timestamp DESC LIMIT $3"""

router = APIRouter(prefix="/api/v1")


class Reading(BaseModel):
    """What a device sends."""

    data: dict[str, float]
    timestamp: datetime | None = None


class Receipt(BaseModel):
    """What it is answered."""

    device_id: int
    timestamp: datetime
    accepted: int


class Measured(BaseModel):
    """A point as it is given back."""

    timestamp: datetime
    measurement_name: str
    value: float


class Points(BaseModel):
    """The answer to both reads."""

    device_id: int
    data: list[Measured]


class Credentials(BaseModel):
    """Whose key it is."""

    device_id: int
    name: str
    status: str


def pool_for(url: str, schema: str) -> Pool:
    """A pool whose connections see the schema's tables; enter it to open it."""
    arguments = connect_arguments(url)
    settings = {**arguments.pop("server_settings", {}), "search_path": schema}
    return asyncpg.create_pool(
        **arguments, min_size=POOL_SIZE, max_size=POOL_SIZE, server_settings=settings
    )


def pool_of(request: Request) -> Pool:
    """The app's pool."""
    pool: Pool = request.state.pool
    return pool


Database = Annotated[Pool, Depends(pool_of)]
ApiKey = Annotated[str, Header(alias="X-API-Key")]


async def _device(connection: Any, api_key: str) -> asyncpg.Record:
    device: asyncpg.Record | None = await connection.fetchrow(KEY, api_key)
    if device is None:
        raise HTTPException(401, "This API key opens nothing.")
    return device


async def _own(connection: Any, api_key: str, device_id: int) -> None:
    if (await _device(connection, api_key))["id"] != device_id:
        raise HTTPException(404, "There is no such device.")


@router.post("/telemetry", status_code=201)
async def submit(reading: Reading, api_key: ApiKey, database: Database) -> Receipt:
    """Key, points, event and last_seen in one transaction."""
    at = reading.timestamp or datetime.now(UTC)
    names, values = list(reading.data), list(reading.data.values())
    async with database.acquire() as connection, connection.transaction():
        device = await _device(connection, api_key)
        await connection.execute(_POINTS, device["id"], at, names, values)
        await connection.execute(_EVENT, device["id"], device["user_id"], at, names)
        await connection.execute(_SEEN, device["id"], at)
    return Receipt(device_id=device["id"], timestamp=at, accepted=len(names))


@router.get("/telemetry/{device_id}/latest")
async def latest(device_id: int, api_key: ApiKey, database: Database) -> Points:
    """The newest point of each measurement."""
    async with database.acquire() as connection:
        await _own(connection, api_key, device_id)
        rows = await connection.fetch(_LATEST, device_id)
    return _points(device_id, rows)


@router.get("/telemetry/{device_id}")
async def history(
    device_id: int,
    api_key: ApiKey,
    database: Database,
    start_time: Annotated[str, Query(pattern=r"^-\d{1,4}h$")] = "-24h",
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
) -> Points:
    """The newest points of the last hours."""
    since = datetime.now(UTC) - timedelta(hours=int(start_time[1:-1]))
    async with database.acquire() as connection:
        await _own(connection, api_key, device_id)
        rows = await connection.fetch(_HISTORY, device_id, since, limit)
    return _points(device_id, rows)


@router.get("/devices/credentials")
async def credentials(api_key: ApiKey, database: Database) -> Credentials:
    """Check a key, and nothing else."""
    async with database.acquire() as connection:
        device = await _device(connection, api_key)
    return Credentials(device_id=device["id"], name=device["name"], status=device["status"])


def _points(device_id: int, rows: list[asyncpg.Record]) -> Points:
    return Points(device_id=device_id, data=[Measured(**dict(row)) for row in rows])


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Pool]]:
    async with pool_for(os.environ[URL_VARIABLE], os.environ[SCHEMA_VARIABLE]) as pool:
        yield {"pool": pool}


def create_app() -> FastAPI:
    """The app; its database and schema stand in the environment."""
    app = FastAPI(title="naive", lifespan=_lifespan)
    app.include_router(router)
    return app
