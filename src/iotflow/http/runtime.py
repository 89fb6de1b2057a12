"""How a route reaches the services: through the lifespan's state."""

from typing import Annotated

from fastapi import Depends, Request

from iotflow.runtime import Runtime


async def runtime_of(request: Request) -> Runtime:
    runtime: Runtime = request.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(runtime_of)]
