"""Error answers as OpenAPI lists them."""

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field

from iotflow.http.problems import MEDIA_TYPE


class FieldProblem(BaseModel):
    field: str
    code: str
    message: str


class ProblemDocument(BaseModel):
    """RFC 9457. `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldProblem] = Field(default_factory=list[FieldProblem])


_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for the statuses that it may answer with an error."""
    return {status: _answer(status) for status in statuses}


def _answer(status: int) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": _SCHEMA}},
    }
    if status in (429, 503):
        answer["headers"] = _RETRY_AFTER
    return answer
