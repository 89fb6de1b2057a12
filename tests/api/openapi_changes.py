"""What of a change to the OpenAPI document breaks the programs that were written against it.

`python -m tests.api.openapi_changes` writes docs/openapi.json anew.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iotflow.app import create_api
from iotflow.observability.metrics import Metrics
from iotflow.settings import Settings

COMMITTED = Path(__file__).parents[2] / "docs" / "openapi.json"
_METHODS = ("get", "put", "post", "delete", "patch")
_LEVELS = 12

Document = Mapping[str, Any]


def current_document() -> dict[str, Any]:
    """The document of this code; what is in it does not depend on any setting."""
    with TemporaryDirectory() as directory:
        settings = Settings.load({}, data_dir=Path(directory), _env_file=None)
        return create_api(settings, Metrics()).openapi()


def written(document: Document) -> str:
    """As it is committed: a change shows as the lines that changed."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def breaking_changes(old: Document, new: Document) -> list[str]:
    """In words, one each. An empty list where every old program goes on working."""
    found: list[str] = []
    for path, operations in old["paths"].items():
        for method in _METHODS:
            if method not in operations:
                continue
            name = f"{method.upper()} {path}"
            changed = new["paths"].get(path, {}).get(method)
            if changed is None:
                found.append(f"{name} is gone")
                continue
            found += [
                f"{name}: {each}" for each in _operation(old, new, operations[method], changed)
            ]
    return found


def _operation(old_doc: Document, new_doc: Document, old: Any, new: Any) -> Iterator[str]:
    if old["operationId"] != new["operationId"]:
        yield f"its operation id {old['operationId']} became {new['operationId']}"
    yield from _parameters(old_doc, new_doc, old, new)
    yield from _request(old_doc, new_doc, old, new)
    yield from _responses(old_doc, new_doc, old, new)
    open_before, open_now = not old.get("security"), not new.get("security")
    if open_before and not open_now:
        yield "it asks for credentials now"


def _parameters(old_doc: Document, new_doc: Document, old: Any, new: Any) -> Iterator[str]:
    before = {(each["in"], each["name"]): each for each in old.get("parameters", [])}
    now = {(each["in"], each["name"]): each for each in new.get("parameters", [])}
    for key in before.keys() - now.keys():
        yield f"the {key[0]} parameter {key[1]} is gone"
    for key, parameter in now.items():
        where = f"the {key[0]} parameter {key[1]}"
        was = before.get(key)
        if parameter.get("required") and not (was and was.get("required")):
            yield f"{where} is required now"
        if was:
            yield from _sent(old_doc, new_doc, was["schema"], parameter["schema"], where)


def _request(old_doc: Document, new_doc: Document, old: Any, new: Any) -> Iterator[str]:
    before, now = old.get("requestBody"), new.get("requestBody")
    if now and now.get("required") and not (before and before.get("required")):
        yield "it asks for a body now"
    for kind, content in (before or {}).get("content", {}).items():
        accepted = (now or {}).get("content", {}).get(kind)
        if accepted is None:
            yield f"it takes no {kind} any more"
        else:
            yield from _sent(old_doc, new_doc, content["schema"], accepted["schema"], "the body")


def _responses(old_doc: Document, new_doc: Document, old: Any, new: Any) -> Iterator[str]:
    for status, answer in old["responses"].items():
        now = new["responses"].get(status)
        if now is None:
            if status.startswith("2"):
                yield f"it answers {status} no more"
            continue
        for kind, content in answer.get("content", {}).items():
            given = now.get("content", {}).get(kind)
            if given is None:
                yield f"its {status} is no {kind} any more"
                continue
            was, became = content.get("schema", {}), given.get("schema", {})
            yield from _received(old_doc, new_doc, was, became, f"the {status}")


def _resolved(document: Document, schema: Any) -> Any:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _types(document: Document, schema: Any) -> set[str]:
    """The JSON types that a schema allows; empty where it says nothing of them."""
    schema = _resolved(document, schema)
    if "type" in schema:
        told = schema["type"]
        types = {told} if isinstance(told, str) else set(told)
        return types | ({"integer"} if "number" in types else set())
    found: set[str] = set()
    for part in schema.get("anyOf", []) + schema.get("oneOf", []):
        types = _types(document, part)
        if not types:
            return set()
        found |= types
    return found


def _sent(
    old_doc: Document, new_doc: Document, old: Any, new: Any, where: str, levels: int = _LEVELS
) -> Iterator[str]:
    """What callers may send: all that was allowed must go on being so."""
    was, now = _types(old_doc, old), _types(new_doc, new)
    if now and not (was and was <= now):
        yield f"{where} took {_words(was)} and takes {_words(now)}"
    old, new = _resolved(old_doc, old), _resolved(new_doc, new)
    if "enum" in new and not ("enum" in old and set(old["enum"]) <= set(new["enum"])):
        yield f"{where} takes {', '.join(map(str, new['enum']))} alone now"
    for bound in ("maximum", "maxLength", "maxItems"):
        if bound in new and new[bound] < old.get(bound, float("inf")):
            yield f"{where} has a smaller {bound} now"
    for bound in ("minimum", "minLength", "minItems"):
        if bound in new and new[bound] > old.get(bound, float("-inf")):
            yield f"{where} has a larger {bound} now"
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        yield f"{where} must have {name} now"
    if levels:
        properties = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            if name in properties:
                inside = f"{where}, {name}:"
                yield from _sent(old_doc, new_doc, schema, properties[name], inside, levels - 1)
            elif not new.get("additionalProperties", True):
                yield f"{where} may not have {name} any more"
        if "items" in old and "items" in new:
            inside = f"{where}, each:"
            yield from _sent(old_doc, new_doc, old["items"], new["items"], inside, levels - 1)


def _received(
    old_doc: Document, new_doc: Document, old: Any, new: Any, where: str, levels: int = _LEVELS
) -> Iterator[str]:
    """What callers may rely on: no other kind comes, and what came for sure still does."""
    was, now = _types(old_doc, old), _types(new_doc, new)
    if was and not (now and now <= was):
        yield f"{where} held {_words(was)} and holds {_words(now)}"
    old, new = _resolved(old_doc, old), _resolved(new_doc, new)
    gone = set(old.get("properties", {})) - set(new.get("properties", {}))
    for name in sorted(gone):
        yield f"{where} has no {name} any more"
    for name in sorted(set(old.get("required", [])) - set(new.get("required", [])) - gone):
        yield f"{where} may lack {name} now"
    if levels:
        for name, schema in old.get("properties", {}).items():
            if name not in gone:
                became, inside = new["properties"][name], f"{where}, {name}:"
                yield from _received(old_doc, new_doc, schema, became, inside, levels - 1)
        if "items" in old and "items" in new:
            inside = f"{where}, each:"
            yield from _received(old_doc, new_doc, old["items"], new["items"], inside, levels - 1)


def _words(types: set[str]) -> str:
    return " or ".join(sorted(types)) or "anything"


if __name__ == "__main__":
    COMMITTED.write_text(written(current_document()), encoding="utf-8")
