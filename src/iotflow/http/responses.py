"""Error answers as OpenAPI lists them."""

from typing import Any

from pydantic import BaseModel, Field

from iotflow.http.phrases import PHRASES
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


REFERENCE = "#/components/schemas/{model}"
_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}}}
_RATE_LIMIT = {
    "RateLimit-Policy": {
        "description": "The policy whose limit is reached, its quota and its window in seconds.",
        "schema": {"type": "string"},
        "example": '"ingest";q=1000;w=10',
    },
    "RateLimit": {
        "description": "What is left of the quota, and the seconds until there is more.",
        "schema": {"type": "string"},
        "example": '"ingest";r=0;t=7',
    },
}


def problems(
    *statuses: int, model: type[ProblemDocument] = ProblemDocument
) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for the statuses that it may answer with an error.

    A `model` of a feature's own has to be among those that the application documents.
    """
    return {status: _answer(status, model) for status in statuses}


def _answer(status: int, model: type[ProblemDocument]) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model=model.__name__)}
    answer: dict[str, Any] = {
        "description": PHRASES[status],
        "content": {MEDIA_TYPE: {"schema": schema}},
    }
    if status in (429, 503):
        answer["headers"] = _RETRY_AFTER | (_RATE_LIMIT if status == 429 else {})
    return answer
