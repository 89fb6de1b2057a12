"""Personal tokens: long-lived, for dashboards, SDKs and scripts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from iotflow.accounts.authentication import BearerAuthenticator
from iotflow.domain.callers import UserCaller
from iotflow.domain.events import Event
from iotflow.domain.secrets import PERSONAL_TOKEN_PREFIX, new_secret
from iotflow.domain.tokens import PersonalToken, Scope
from iotflow.errors import NotAuthenticatedError, NotFoundError
from iotflow.stores.registry.protocol import NewPersonalToken, Registry


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token's metadata with the token itself, at the only moment when that is known."""

    token: PersonalToken
    secret: str


class PersonalTokens:
    """`limit` is how many a user may have at once."""

    def __init__(
        self,
        registry: Registry,
        bearers: BearerAuthenticator,
        *,
        limit: int,
        log_event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._bearers = bearers
        self._limit = limit
        self._log_event = log_event
        self._now_s = now

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    async def create(
        self, caller: UserCaller, name: str, scopes: frozenset[Scope], expires_in_s: int | None
    ) -> CreatedToken:
        """Make a token. One that is made with another token ends with that at the latest.

        Raises:
            ConflictError: `too_many_tokens`.
        """
        now, secret = self._now(), new_secret(PERSONAL_TOKEN_PREFIX)
        ends = [] if expires_in_s is None else [now + timedelta(seconds=expires_in_s)]
        if caller.token_expires_at is not None:
            ends.append(caller.token_expires_at)
        new = NewPersonalToken(
            caller.user.id,
            name,
            secret.digest,
            secret.prefix,
            scopes,
            min(ends, default=None),
            caller.user.token_version,
        )
        try:
            token = await self._registry.add_personal_token(new, self._limit, now)
        except NotFoundError:  # the session ended while we were at it
            self._bearers.forget_user(caller.user.id)
            raise NotAuthenticatedError(
                "This session has ended. Sign in again.", code="session_ended"
            ) from None
        self._audit("token.created", token.user_id, {"prefix": token.prefix})
        return CreatedToken(token, secret.secret)

    async def page(
        self, caller: UserCaller, after_id: int, limit: int
    ) -> tuple[list[PersonalToken], bool]:
        """The caller's live tokens in order of their ids, and whether there is more."""
        return await self._registry.personal_tokens(caller.user.id, after_id, limit, self._now())

    async def delete(self, caller: UserCaller, token_id: int) -> None:
        """End a token: on this replica at once, on all within a second.

        Raises:
            NotFoundError: the caller has no such token.
        """
        digest = await self._registry.delete_personal_token(caller.user.id, token_id)
        if digest is None:
            raise NotFoundError("There is no such token.")
        self._bearers.forget_token(digest)
        self._audit("token.deleted", caller.user.id, {"token_id": str(token_id)})

    def _audit(self, event_type: str, user_id: int, details: dict[str, str]) -> None:
        at_ms = int(self._now_s() * 1000)
        self._log_event(Event(uuid4().hex, event_type, at_ms, user_id, None, details))
