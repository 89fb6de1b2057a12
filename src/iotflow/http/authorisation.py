"""Who may do what: one rule for each operation of the API, and the one place that applies it.

A rule says which credentials count, whether a personal token needs its write scope, whether an
administrator is asked for, and whether the path names a user who must be the caller. Whose a
device, group or job is only a look-up tells: the service that makes it asks the caller's
`may_act_for` or `is_device`, the two questions of domain/callers.py. What belongs to someone else
is answered as what does not exist.

An operation without a rule is not served: the application refuses to start with one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto

from fastapi import APIRouter
from fastapi.routing import APIRoute

from iotflow.domain.callers import Caller, DeviceCaller, UserCaller
from iotflow.domain.tokens import Scope
from iotflow.errors import NotAllowedError, NotAuthenticatedError
from iotflow.runtime import Runtime


class Who(Enum):
    """Whose credentials an operation looks at."""

    ANYONE = auto()
    USER = auto()
    DEVICE = auto()
    USER_OR_DEVICE = auto()


@dataclass(frozen=True, slots=True)
class Rule:
    """`own_user` is the path's parameter for a user: the caller, or anyone for an admin.

    `users_only` lets a device be known and tells it that this is not for devices.
    """

    who: Who
    writes: bool = False
    admin: bool = False
    users_only: bool = False
    own_user: str | None = None


_PUBLIC = Rule(Who.ANYONE)
_READ, _WRITE = Rule(Who.USER), Rule(Who.USER, writes=True)
_ADMIN_READ = Rule(Who.USER, admin=True)
_ADMIN_WRITE = Rule(Who.USER, writes=True, admin=True)
_SELF_READ = Rule(Who.USER, own_user="user_id")
_SELF_WRITE = Rule(Who.USER, writes=True, own_user="user_id")
_DEVICE_READ, _DEVICE_WRITE = Rule(Who.DEVICE), Rule(Who.DEVICE, writes=True)
_SHARED_READ = Rule(Who.USER_OR_DEVICE)

RULES: dict[str, Rule] = {
    # accounts
    "register": _PUBLIC,
    "login": _PUBLIC,
    "issue_token": _PUBLIC,
    "refresh": _PUBLIC,
    "logout": _PUBLIC,
    "change_password": _WRITE,
    "list_tokens": _READ,
    "create_token": _WRITE,
    "delete_token": _WRITE,
    "me": _READ,
    "get_user": _SELF_READ,
    "update_user": _SELF_WRITE,
    "list_users": _ADMIN_READ,
    "activate_user": _ADMIN_WRITE,
    "deactivate_user": _ADMIN_WRITE,
    "delete_user": _ADMIN_WRITE,
    # administrators
    "admin_list_devices": _ADMIN_READ,
    "admin_device_statuses": _ADMIN_READ,
    "admin_get_device": _ADMIN_READ,
    "admin_update_device": _ADMIN_WRITE,
    "admin_delete_device": _ADMIN_WRITE,
    "admin_set_device_status": _ADMIN_WRITE,
    "admin_stats": _ADMIN_READ,
    "create_invitation": _ADMIN_WRITE,
    "begin_replay": _ADMIN_WRITE,
    "begin_verification": _ADMIN_WRITE,
    "begin_warming": _ADMIN_WRITE,
    # devices, for their owners
    "register_device": _WRITE,
    "register_devices": _WRITE,
    "list_devices": _READ,
    "list_user_devices": _SELF_READ,
    "get_device": _READ,
    "update_device": _WRITE,
    "delete_device": _WRITE,
    "get_device_status": _READ,
    "list_device_groups": _READ,
    "list_device_keys": _READ,
    "rotate_device_key": _WRITE,
    "revoke_device_key": _WRITE,
    "device_config": _READ,
    "set_device_config": _WRITE,
    # devices, for themselves
    "own_status": _DEVICE_READ,
    "own_credentials": _DEVICE_READ,
    "own_config": _DEVICE_READ,
    "report_own_config": _DEVICE_WRITE,
    "heartbeat": _DEVICE_WRITE,
    # groups and jobs
    "create_group": _WRITE,
    "list_groups": _READ,
    "get_group": _READ,
    "replace_group": _WRITE,
    "delete_group": _WRITE,
    "list_group_devices": _READ,
    "add_group_device": _WRITE,
    "add_group_devices": _WRITE,
    "remove_group_device": _WRITE,
    "list_jobs": _READ,
    "get_job": _READ,
    # telemetry
    "submit_telemetry": _DEVICE_WRITE,
    "submit_telemetry_batch": _DEVICE_WRITE,
    "device_history": _SHARED_READ,
    "device_latest": _SHARED_READ,
    "device_aggregated": _SHARED_READ,
    "latest_of_many": _SHARED_READ,
    "user_history": _SELF_READ,
    "delete_history": Rule(Who.USER_OR_DEVICE, writes=True, users_only=True),
    "telemetry_status": _PUBLIC,
    # events
    "list_events": _READ,
    # service
    "service": _PUBLIC,
    "health": _PUBLIC,
    "live": _PUBLIC,
    "ready": _PUBLIC,
    "status": _PUBLIC,
    "metrics": _PUBLIC,
}


async def admit(
    runtime: Runtime,
    operation: str,
    token: str | None,
    key: str | None,
    path: Mapping[str, str] | None = None,
) -> Caller:
    """The caller of an operation, who may begin it, within their rate limit.

    With both credentials sent, the user's counts.

    Raises:
        NotAuthenticatedError: no credentials that the operation looks at, or bad ones.
        NotAllowedError: `insufficient_scope`, `not_allowed`, `device_inactive`.
        NotFoundError: the path names another user.
        RateLimitedError: too many calls.
    """
    rule = RULES[operation]
    caller = await _identify(runtime, rule, token, key)
    await runtime.limiter.check("write" if rule.writes else "read", caller.subject)
    if isinstance(caller, DeviceCaller):
        if rule.users_only:
            raise NotAllowedError("A device cannot do this; its owner can.")
        runtime.pipeline.note_seen(caller.key.key_id, runtime.now_ms())
    else:
        _check_user(rule, caller, path or {})
    return caller


async def _identify(runtime: Runtime, rule: Rule, token: str | None, key: str | None) -> Caller:
    if token is not None and rule.who in (Who.USER, Who.USER_OR_DEVICE):
        return await runtime.bearers.caller(token)
    if key is not None and rule.who in (Who.DEVICE, Who.USER_OR_DEVICE):
        return DeviceCaller(runtime.keys.known(key) or await runtime.keys.authenticate(key))
    raise NotAuthenticatedError(_WANTED[rule.who])


_TOKEN = "a token (Authorization: Bearer <token>)"
_KEY = "the device's key (X-API-Key: iotd_…)"
_WANTED = {
    Who.ANYONE: "This call takes no credentials.",
    Who.USER: f"Sign in, and send {_TOKEN}.",
    Who.DEVICE: f"Send {_KEY}.",
    Who.USER_OR_DEVICE: f"Send {_TOKEN} or {_KEY}.",
}


def _check_user(rule: Rule, caller: UserCaller, path: Mapping[str, str]) -> None:
    if (Scope.WRITE if rule.writes else Scope.READ) not in caller.scopes:
        raise NotAllowedError(
            "This token reads only. Use one with the scope 'write'.", code="insufficient_scope"
        )
    if rule.admin and not caller.is_admin:
        raise NotAllowedError("Only an administrator may do this.")
    if rule.own_user is not None:
        named = path.get(rule.own_user, "")
        # What is no id at all is told by the route, whose parameters are checked after this.
        if named.isascii() and named.isdigit():
            caller.require_self_or_admin(int(named))


def may_refuse(operation: str) -> bool:
    """Whether a known caller can be told that they may not do this (403)."""
    rule = RULES[operation]
    users = rule.who in (Who.USER, Who.USER_OR_DEVICE)
    return rule.who in (Who.DEVICE, Who.USER_OR_DEVICE) or (users and (rule.writes or rule.admin))


def require_rules(routers: Iterable[APIRouter]) -> None:
    """Raises RuntimeError where a route has no rule."""
    routes = [route for router in routers for route in router.routes]
    missing = sorted({route.name for route in routes if isinstance(route, APIRoute)} - set(RULES))
    if missing:
        raise RuntimeError(f"add rules to http/authorisation.py for {', '.join(missing)}")
