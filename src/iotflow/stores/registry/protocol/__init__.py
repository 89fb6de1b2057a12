"""The registry role: users, sessions, devices, keys. The relational truth.

Rules that hold for every adapter (tests/contract/test_registry.py): ids rise and a
deleted one never comes back; usernames and e-mail addresses are unique whatever their
case; all times are aware and in UTC; secrets come in as digests.
"""

from typing import Protocol

from iotflow.stores.lifecycle import Store
from iotflow.stores.registry.protocol.accounts import (
    Accounts,
    NewInvitation,
    NewPersonalToken,
    NewRefreshToken,
    NewUser,
    RegistryCounts,
    Reused,
    Rotated,
    UserQuery,
)
from iotflow.stores.registry.protocol.devices import DeviceQuery, Devices, NewDevice, NewKey
from iotflow.stores.registry.protocol.groups import GroupQuery, Groups, NewGroup
from iotflow.stores.registry.protocol.jobs import JobQuery, Jobs, NewJob
from iotflow.stores.registry.protocol.processes import Processes, Slot

__all__ = [
    "DeviceQuery",
    "GroupQuery",
    "JobQuery",
    "NewDevice",
    "NewGroup",
    "NewInvitation",
    "NewJob",
    "NewKey",
    "NewPersonalToken",
    "NewRefreshToken",
    "NewUser",
    "Registry",
    "RegistryCounts",
    "Reused",
    "Rotated",
    "Slot",
    "UserQuery",
]


class Registry(Accounts, Devices, Groups, Jobs, Processes, Store, Protocol):
    """Every method raises StoreUnavailableError while the store is away."""
