"""Worked examples as OpenAPI has them: named, so that the API explorer offers a choice.

Each is run, and each answer compared with its schema (tests/api/test_openapi_examples.py).
FastAPI drops what is null from its document, so no example has a null.
"""

from typing import Any

Example = dict[str, Any]
Responses = dict[int | str, dict[str, Any]]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
NEXT_CURSOR = "q83vEjRWeJCrze8SNFZ4kA=="


def example(summary: str, value: Any) -> Example:
    """One example; `summary` says in a few words what it is of."""
    return {"summary": summary, "value": value}


def asks(media_type: str = JSON, **examples: Example) -> dict[str, Any]:
    """The `openapi_extra` of a route with these examples of its body, by name."""
    return {"requestBody": {"content": {media_type: {"examples": examples}}}}


def answers(
    status: int, value: Any, summary: str = "An answer", media_type: str = JSON, **rest: Any
) -> Responses:
    """The part of a route's `responses` that shows an answer. `rest` joins it as it is."""
    examples = {"answer": example(summary, value)}
    return {status: {"content": {media_type: {"examples": examples}}, **rest}}


def shown(body: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    """A declared body, with the examples that `asks` made for it."""
    described = body["requestBody"]
    content = {
        media_type: {**media, **examples["requestBody"]["content"].get(media_type, {})}
        for media_type, media in described["content"].items()
    }
    return {"requestBody": {**described, "content": content}}
