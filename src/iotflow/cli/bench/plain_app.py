"""The yardstick: one plain FastAPI route, as a good newcomer writes it. It stores nothing."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel


class Reading(BaseModel):
    """What a device sends."""

    data: dict[str, float]
    timestamp: datetime | None = None


class Receipt(BaseModel):
    """What it is answered."""

    device: str
    timestamp: datetime
    accepted: int


async def device_of(x_api_key: Annotated[str | None, Header()] = None) -> str:
    """The caller, by a header; nothing is looked up."""
    if not x_api_key:
        raise HTTPException(401, "Send a key in X-API-Key.")
    return x_api_key[:8]


async def submit(reading: Reading, device: Annotated[str, Depends(device_of)]) -> Receipt:
    """Take a reading and throw it away."""
    taken_at = reading.timestamp or datetime.now(UTC)
    return Receipt(device=device, timestamp=taken_at, accepted=len(reading.data))


def create_app() -> FastAPI:
    """The app with its one route, `POST /plain`."""
    app = FastAPI(title="plain")
    app.post("/plain", status_code=201, response_model=Receipt)(submit)
    return app
