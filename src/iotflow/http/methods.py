"""Which methods an address takes, as the OpenAPI document has it.

The framework looks at its routes one by one: it takes GET /devices/register for the device
"register", and names the methods of one route where two share a path.
"""

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

_METHODS = frozenset({"get", "put", "post", "delete", "patch", "head", "options", "trace"})


class Methods:
    """The methods by path, literal paths before those with parameters."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._literal: dict[str, str] = {}
        self._templates: list[tuple[re.Pattern[str], str]] = []

    def of(self, path: str) -> str | None:
        """As an Allow header lists them, or None where nothing is known of the path."""
        if not self._literal:
            self._read(self._app.openapi()["paths"])
        literal = self.of_literal(path)
        return literal or next(self._matching(path), None)

    def of_literal(self, path: str) -> str | None:
        """The methods of a path without parameters."""
        if not self._literal:
            self._read(self._app.openapi()["paths"])
        return self._literal.get(path)

    def _matching(self, path: str) -> Iterator[str]:
        return (allowed for pattern, allowed in self._templates if pattern.fullmatch(path))

    def _read(self, paths: dict[str, dict[str, Any]]) -> None:
        for path, operations in paths.items():
            allowed = ", ".join(method.upper() for method in operations if method in _METHODS)
            if "{" in path:
                parts = re.split(r"\{[^}]*\}", path)
                pattern = "[^/]+".join(re.escape(part) for part in parts)
                self._templates.append((re.compile(pattern), allowed))
            else:
                self._literal[path] = allowed
