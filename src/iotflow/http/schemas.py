"""What all schemas share: strict bodies, and times as the contract writes them."""

from datetime import datetime
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    PlainSerializer,
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


def _printable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("NUL characters cannot be stored")
    return text


Text = Annotated[str, AfterValidator(_printable)]
"""Text that every store can keep."""
