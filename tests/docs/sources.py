"""What the source says that the pages list: codes of errors, settings with their defaults."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_settings import BaseSettings

from iotflow.domain.limits import RatePolicy
from iotflow.settings import Settings

SOURCE = Path(__file__).parents[2] / "src" / "iotflow"
_CODE = re.compile(r"[a-z]+(_[a-z0-9]+)*")

# Calls that take a code, and at which place.
_TAKE_CODES = {
    "FieldError": 1, "of_field": 1, "rejection": 1, "Rejection": 1, "Problem": 1, "_refused": 1,
    "Refusal": 2,
}  # fmt: skip
# One code is put together, of the name of a table.
_TABLES = ("devices", "groups")


def codes() -> set[str]:
    """Every `code` that an answer of the service can have, but for those of the schema library."""
    found: set[str] = set()
    for path in SOURCE.rglob("*.py"):
        if "cli" not in path.relative_to(SOURCE).parts:
            found |= set(_codes_in(ast.parse(path.read_text("utf-8"))))
    return found - {"configuration"}  # ends a start; no answer has it


def _codes_in(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        for value in _candidates(node):
            yield from _texts(value)


def _candidates(node: ast.AST) -> Iterator[ast.expr]:
    """Expressions that are codes."""
    match node:
        case ast.AnnAssign(target=ast.Name(id="code"), value=ast.expr() as value):
            yield value
        case ast.Assign(targets=[ast.Name(id="code")], value=value):
            yield value
        case ast.Assign(targets=[ast.Name(id="_CODES")], value=ast.Dict(values=values)):
            yield from values
        case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="code"), *_])]) as several:
            if isinstance(several.value, ast.Tuple):
                yield several.value.elts[0]
        case ast.Return(value=ast.Tuple(elts=[ast.Constant() as first, ast.JoinedStr()])):
            yield first
        case ast.Call():
            yield from (word.value for word in node.keywords if word.arg == "code")
            yield from _argument(node)
        case _:
            pass


def _argument(call: ast.Call) -> Iterator[ast.expr]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = _TAKE_CODES.get(name)
    if place is not None and len(call.args) > place:
        yield call.args[place]


def _texts(value: ast.expr) -> Iterator[str]:
    match value:
        case ast.IfExp():
            yield from _texts(value.body)
            yield from _texts(value.orelse)
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, default]):
            yield from _texts(default)
        case ast.JoinedStr() if ast.unparse(value).startswith("f'too_many_{"):
            yield from (f"too_many_{table}" for table in _TABLES)
        case ast.Constant(value=str() as text) if _CODE.fullmatch(text):
            yield text
        case _:
            pass


def settings() -> dict[str, str]:
    """Every setting's variable, and its default as the pages write it."""
    return dict(_settings_of(Settings, "IOTFLOW_"))


def _settings_of(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        variable = f"{prefix}{field.alias or name}".upper()
        annotation: Any = field.annotation
        nested = isinstance(annotation, type) and issubclass(annotation, BaseModel)
        if nested and not issubclass(annotation, BaseSettings | SecretStr):
            yield from _settings_of(annotation, f"{variable}__")
        else:
            yield variable, default_text(field.get_default(call_default_factory=True))


def default_text(value: Any) -> str:
    match value:
        case None | () | "":
            return ""
        case {} if not value:
            return ""
        case bool():
            return str(value).lower()
        case RatePolicy():
            return f"{value.limit}/{value.window_s}"
        case float() if value.is_integer():
            return str(int(value))
        case _:
            return str(value)
