"""What all schemas share: strict bodies, and times as the contract writes them."""

from datetime import datetime
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

from iotflow.domain.times import format_ms, to_ms


class Model(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True)


class Body(BaseModel):
    """A request: types as JSON has them, and nothing that the call does not know."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Query(BaseModel):
    """Query parameters: text is converted, unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Time = Annotated[
    datetime,
    PlainSerializer(lambda moment: format_ms(to_ms(moment)), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def _whole(value: object) -> object:
    # JSON has one kind of number: 60.0 is an integer there.
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""For an integer in a strict body, which may be written with a fraction of zero."""


NO_NUL = r"^[^\x00]*$"
Text = Annotated[str, StringConstraints(pattern=NO_NUL)]
"""Text that every store can keep."""
