"""A plain function as a route or a dependency would run in a thread, for every request."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from iotflow import app
from iotflow.http.queries import refuse_unknown_parameters

ROUTERS = [each for each in vars(app).values() if isinstance(each, APIRouter)]
ROUTES = [each for router in ROUTERS for each in router.routes if isinstance(each, APIRoute)]


def calls_of(dependant: Dependant) -> Iterator[Any]:
    if dependant.call is not None:
        yield dependant.call
    for each in dependant.dependencies:
        yield from calls_of(each)


def is_asynchronous(call: Any) -> bool:
    return any(map(inspect.iscoroutinefunction, (call, type(call).__call__)))


def test_there_are_routes() -> None:
    assert len(ROUTES) > 50


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_nothing_of_a_route_needs_a_thread(route: APIRoute) -> None:
    calls = {*calls_of(route.dependant), refuse_unknown_parameters}
    assert [call for call in calls if not is_asynchronous(call)] == []
