"""The service's OpenAPI document as code generators like it: names for what has none.

What the document means is left alone. Three things differ:
- bodies that are written out in place become components, because a generator would call them
  `SubmitTelemetryBatchJsonBodyRecordsItemDataAdditionalPropertyType3`;
- `DeviceOut` becomes `Device` wherever the shorter name is free;
- of several content types the JSON one stays, as neither generator can offer a choice.
"""

import re
from typing import Any, cast

Schema = dict[str, Any]

# Whose names are taken by something else that a reader would rather call so.
_RENAMED = {
    "ProblemDocument": "Problem",
    "StatusOut": "TelemetryStatus",
    "Status": "HealthStatus",
    "WindowOut": "TimeWindow",
    "WindowsOut": "TimeWindows",
}
# A moment the document calls a mere string; all of the API's moments are RFC 3339 in UTC.
_MOMENTS = {"timestamp", "start_time", "end_time", "at"}


def prepared(document: Schema) -> Schema:
    """The document, changed in place and returned under its new names."""
    _only_json(document)
    _name_telemetry(document)
    _mark_moments(document["components"]["schemas"])
    return _rename(document, _names(document["components"]["schemas"]))


def _only_json(document: Schema) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for content in (body.get("content", {}) for body in bodies):
                if "application/json" in content:
                    for other in content.keys() - {"application/json"}:
                        del content[other]


def _name_telemetry(document: Schema) -> None:
    """`Submission`, `Batch`, `BatchRecord`, `Measurements` and `Quantity` for what devices send."""
    schemas, paths = document["components"]["schemas"], document["paths"]
    single = _json_body(paths["/api/v1/telemetry"]["post"])
    batch = _json_body(paths["/api/v1/telemetry/batch"]["post"])
    report = _json_body(paths["/api/v1/devices/config"]["put"])
    records = batch["schema"]["properties"]["records"]
    for record in (single["schema"], records["items"]):
        values = record["properties"]["data"]["additionalProperties"]["oneOf"]
        written_out = next(index for index, kind in enumerate(values) if kind["type"] == "object")
        values[written_out] = _component(schemas, "Quantity", values[written_out])
        record["properties"]["data"] = _component(
            schemas, "Measurements", record["properties"]["data"]
        )
        metadata = record["properties"]["metadata"] | {"type": "object"}
        record["properties"]["metadata"] = _component(schemas, "Metadata", metadata)
    records["items"] = _component(schemas, "BatchRecord", records["items"])
    single["schema"] = _component(schemas, "Submission", single["schema"])
    batch["schema"] = _component(schemas, "Batch", batch["schema"])
    report["schema"] = _component(schemas, "ConfigReport", report["schema"])


def _json_body(operation: Schema) -> Schema:
    return cast(Schema, operation["requestBody"]["content"]["application/json"])


def _component(schemas: Schema, name: str, schema: Schema) -> Schema:
    """A reference to the schema under a name of its own."""
    if "$ref" in schema:
        return schema
    if schemas.setdefault(name, schema) != schema:
        raise SystemExit(f"the OpenAPI document has two different schemas for {name}")
    return {"$ref": f"#/components/schemas/{name}"}


def _mark_moments(schemas: Schema) -> None:
    for schema in schemas.values():
        for name, kind in schema.get("properties", {}).items():
            if name in _MOMENTS and kind.get("type") == "string":
                kind["format"] = "date-time"


def _names(schemas: Schema) -> dict[str, str]:
    names = {old: new for old, new in _RENAMED.items() if old in schemas}
    taken = schemas.keys() - names.keys() | set(names.values())
    for name in sorted(schemas.keys() - names.keys()):
        short = name.removesuffix("Out")
        if short != name and short not in taken:
            names[name] = short
            taken.add(short)
    return names


def _rename(document: Schema, names: dict[str, str]) -> Schema:
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        schema.pop("title", None)  # repeats the old name
    document["components"]["schemas"] = {
        names.get(name, name): schema for name, schema in schemas.items()
    }
    return cast(Schema, _with_references(document, names))


def _with_references(node: Any, names: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_with_references(each, names) for each in cast(list[Any], node)]
    if not isinstance(node, dict):
        return node
    found = cast(Schema, node)
    reference = found.get("$ref")
    if isinstance(reference, str) and (match := re.search(r"/schemas/(\w+)$", reference)):
        return {"$ref": f"#/components/schemas/{names.get(match[1], match[1])}"}
    return {key: _with_references(value, names) for key, value in found.items()}
