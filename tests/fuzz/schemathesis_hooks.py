"""What Schemathesis has no serializer for: lines of JSON are text to it."""

from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def ndjson(_: Any, value: Any) -> dict[str, Any]:
    text = value if isinstance(value, bytes | str) else str(value)
    return {"data": text if isinstance(text, bytes) else text.encode("utf-8", "replace")}
