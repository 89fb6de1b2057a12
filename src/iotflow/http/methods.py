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
        self._templates: list[tuple[int, re.Pattern[str], str]] = []

    def of(self, path: str) -> str | None:
        """As an Allow header lists them, or None where nothing is known of the path."""
        if not self._literal:
            self._read(self._app.openapi()["paths"])
        literal = self._literal.get(path)
        return literal or next((allowed for _, allowed in self._matching(path)), None)

    def of_literal(self, path: str, method: str) -> str | None:
        """The methods of a path without parameters, or with fewer than that of the route which
        took it for its own: DELETE /groups/1/devices/bulk is no device "bulk".
        """
        if not self._literal:
            self._read(self._app.openapi()["paths"])
        if path in self._literal:
            return self._literal[path]
        matching = list(self._matching(path))
        if len({parameters for parameters, _ in matching}) < 2:
            return None
        allowed = min(matching)[1]
        return None if method in allowed.split(", ") else allowed

    def _matching(self, path: str) -> Iterator[tuple[int, str]]:
        """How many parameters a template has, and its methods; the fewest first."""
        return (
            (parameters, allowed)
            for parameters, pattern, allowed in self._templates
            if pattern.fullmatch(path)
        )

    def _read(self, paths: dict[str, dict[str, Any]]) -> None:
        for path, operations in paths.items():
            allowed = ", ".join(method.upper() for method in operations if method in _METHODS)
            if "{" in path:
                parts = re.split(r"\{[^}]*\}", path)
                pattern = "[^/]+".join(re.escape(part) for part in parts)
                self._templates.append((len(parts) - 1, re.compile(pattern), allowed))
            else:
                self._literal[path] = allowed
        self._templates.sort(key=lambda template: template[0])
