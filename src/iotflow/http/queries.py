"""Query parameters: those that a call does not know are refused, not ignored."""

from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from iotflow.errors import FieldError, InvalidInputError


async def refuse_unknown_parameters(request: Request) -> None:
    """A dependency of every route.

    Raises:
        InvalidInputError: it names the parameters that the route does not have.
    """
    if not request.scope["query_string"]:
        return
    if not all(value.isdecimal() for value in request.path_params.values()):
        return  # no such id, or no such address: that is said first
    route: APIRoute = request.scope["route"]
    known = _names_of(route.dependant)
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        # A name that a caller made up is input: it is bounded before it is sent back.
        errors = tuple(
            FieldError(
                name[:64].encode("utf-8", "replace").decode(),
                "unknown_field",
                "There is no such parameter. Leave it out.",
            )
            for name in unknown[:10]
        )
        raise InvalidInputError("There are parameters that this call does not know.", errors=errors)


def _names_of(dependant: Dependant) -> set[str]:
    names: set[str] = set()
    for parameter in dependant.query_params:
        annotation: Any = parameter.field_info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names |= {field.alias or name for name, field in annotation.model_fields.items()}
        else:
            names.add(parameter.alias)
    for dependency in dependant.dependencies:
        names |= _names_of(dependency)
    return names
