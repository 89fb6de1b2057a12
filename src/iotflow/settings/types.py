"""How single settings are written: policies, lists, secrets."""

import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from iotflow.domain.limits import RatePolicy

_ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.ASCII)


def _parse_policy(value: object) -> object:
    if not isinstance(value, str):
        return value
    limit, slash, window = value.partition("/")
    if not (slash and limit.isdecimal() and window.isdecimal() and int(limit) and int(window)):
        raise ValueError("write it as count/seconds, for instance 1000/10")
    return RatePolicy(int(limit), int(window))


Policy = Annotated[RatePolicy, NoDecode, BeforeValidator(_parse_policy)]


def split_list(value: object) -> object:
    """A list as a line has it, its parts apart by commas or spaces."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


Networks = Annotated[
    tuple[IPv4Network | IPv6Network, ...],
    NoDecode,
    BeforeValidator(split_list),
    Field(max_length=64),
]
Secrets = Annotated[
    tuple[SecretStr, ...], NoDecode, BeforeValidator(split_list), Field(max_length=8)
]


def _check_origin(origin: str) -> str:
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ValueError("write an origin as https://host or https://host:port, or * for any")
    return origin


Origins = Annotated[
    tuple[Annotated[str, AfterValidator(_check_origin)], ...],
    NoDecode,
    BeforeValidator(split_list),
    Field(max_length=64),
]


class StrictModel(BaseModel):
    """A part of the settings; what it does not know is refused."""

    model_config = {"extra": "forbid", "frozen": True, "arbitrary_types_allowed": True}
