"""Whose bearer token it is: access tokens by their signature, personal ones by their digest.

What the registry says of a user or a token is believed for less than a second, on every
replica: so a changed password, a deactivation or a deleted token needs no message to hold
everywhere within one, and a busy user costs a read a second in each process.
"""

import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from iotflow.accounts.tokens import AccessTokens
from iotflow.domain.callers import UserCaller
from iotflow.domain.secrets import PERSONAL_TOKEN_LENGTH, PERSONAL_TOKEN_PREFIX, digest_of
from iotflow.domain.tokens import PersonalToken
from iotflow.domain.users import User
from iotflow.errors import NotAuthenticatedError, OverloadedError, StoreUnavailableError
from iotflow.stores.cache.local import LocalCache, SingleFlight
from iotflow.stores.registry.protocol import Registry

# With the time that a look-up takes it stays below a second.
_TTL_S = 0.8
_CAPACITY = 10_000
# While the registry is away nothing can be revoked in it: what was known goes on.
_OUTAGE_TTL_S = 900.0
# A token's last use is written down this often, and so costs about nothing.
_STAMP_EVERY = timedelta(seconds=60)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Absent:
    """Marks what the registry does not have."""


_ABSENT = _Absent()


class Remembered(Generic[K, V]):
    """Look-ups that are believed for a moment, absence too, and longer while the store is away."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._fresh: LocalCache[K, V | _Absent] = LocalCache(_CAPACITY, _TTL_S, monotonic)
        self._known: LocalCache[K, V] = LocalCache(_CAPACITY, _OUTAGE_TTL_S, monotonic)
        self._lookups: SingleFlight[K, V | None] = SingleFlight()

    async def get(self, key: K, look_up: Callable[[], Awaitable[V | None]]) -> V | None:
        """Raises StoreUnavailableError where nothing is known and the store is away."""
        found = self._fresh.get(key)
        if isinstance(found, _Absent):
            return None
        return await self._ask(key, look_up) if found is None else found

    async def _ask(self, key: K, look_up: Callable[[], Awaitable[V | None]]) -> V | None:
        try:
            found = await self._lookups.run(key, look_up)
        except StoreUnavailableError:
            known = self._known.get(key)
            if known is None:
                raise
            return known
        self._fresh.put(key, _ABSENT if found is None else found)
        if found is None:
            self._known.pop(key)
        else:
            self._known.put(key, found)
        return found

    def forget(self, key: K) -> None:
        self._fresh.pop(key)
        self._known.pop(key)


class BearerAuthenticator:
    """Turns a bearer token into its user. `now` is epoch seconds."""

    def __init__(
        self,
        registry: Registry,
        tokens: AccessTokens,
        now: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._tokens = tokens
        self._now_s = now
        self._users: Remembered[int, User] = Remembered(monotonic)
        self._personal: Remembered[str, tuple[PersonalToken, User]] = Remembered(monotonic)

    async def caller(self, token: str) -> UserCaller:
        """Who sent a token.

        Raises:
            NotAuthenticatedError: it opens nothing, or its user is gone or deactivated.
            StoreUnavailableError: the registry is away, and nothing is known of the user.
        """
        if token.startswith(PERSONAL_TOKEN_PREFIX):
            return await self._by_personal_token(token)
        return await self._by_access_token(token)

    async def _by_access_token(self, text: str) -> UserCaller:
        token = self._tokens.read(text)
        user = await self._users.get(token.user_id, lambda: self._registry.user(token.user_id))
        if user is None or not user.is_active:
            raise _inactive()
        if token.version != user.token_version and token.session != user.kept_session:
            raise NotAuthenticatedError(
                "This session has ended. Sign in again.", code="session_ended"
            )
        return UserCaller(user, session=token.session)

    async def _by_personal_token(self, token: str) -> UserCaller:
        found = None
        if len(token) == PERSONAL_TOKEN_LENGTH:
            digest = digest_of(token)
            found = await self._personal.get(digest, lambda: self._look_up(digest))
        if found is None or _expired(found[0], self._now_s()):
            raise NotAuthenticatedError("This token opens nothing.", code="invalid_token")
        personal, user = found
        if not user.is_active:
            raise _inactive()
        return UserCaller(user, personal.scopes, token_expires_at=personal.expires_at)

    async def _look_up(self, digest: str) -> tuple[PersonalToken, User] | None:
        now = datetime.fromtimestamp(self._now_s(), UTC)
        found = await self._registry.personal_token(digest, now)
        if found is not None and _to_be_stamped(found[0], now):
            with suppress(StoreUnavailableError, OverloadedError):
                await self._registry.note_token_used(found[0].id, now)
        return found

    def forget_user(self, user_id: int) -> None:
        """Look a user up again, here: elsewhere that happens within a second by itself."""
        self._users.forget(user_id)

    def forget_token(self, digest: str) -> None:
        """As `forget_user`, for a personal token."""
        self._personal.forget(digest)


def _to_be_stamped(token: PersonalToken, now: datetime) -> bool:
    return token.last_used_at is None or now - token.last_used_at >= _STAMP_EVERY


def _expired(token: PersonalToken, now_s: float) -> bool:
    return token.expires_at is not None and token.expires_at.timestamp() <= now_s


def _inactive() -> NotAuthenticatedError:
    return NotAuthenticatedError("This account is not active.", code="account_inactive")
