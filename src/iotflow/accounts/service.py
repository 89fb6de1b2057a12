"""Accounts: registering, signing in, staying signed in, signing out."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from iotflow.accounts.passwords import Passwords
from iotflow.accounts.tokens import AccessTokens
from iotflow.domain.events import Event
from iotflow.domain.secrets import REFRESH_TOKEN_PREFIX, NewSecret, digest_of, new_secret
from iotflow.domain.users import User, UserRole
from iotflow.errors import NotAuthenticatedError
from iotflow.limits.limiter import RateLimiter
from iotflow.stores.cache.local import LocalCache, SingleFlight
from iotflow.stores.registry.protocol import NewRefreshToken, NewUser, Registry

# How long another replica may go on with what it knows of a user.
_USER_TTL_S = 1.0
_USER_CAPACITY = 10_000


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A session's tokens, at the only moment when the refresh token is known."""

    user: User
    access_token: str
    refresh_token: str
    expires_in_s: int


class Accounts:
    """`log_event` takes events without waiting; `now` is epoch seconds."""

    def __init__(
        self,
        registry: Registry,
        passwords: Passwords,
        tokens: AccessTokens,
        limiter: RateLimiter,
        *,
        refresh_lifetime_s: int,
        log_event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._passwords = passwords
        self._tokens = tokens
        self._limiter = limiter
        self._refresh_lifetime = timedelta(seconds=refresh_lifetime_s)
        self._log_event = log_event
        self._now_s = now
        self._users: LocalCache[int, User] = LocalCache(_USER_CAPACITY, _USER_TTL_S)
        self._lookups: SingleFlight[int, User | None] = SingleFlight()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    async def register(
        self, username: str, email: str, password: str, address: str, role: UserRole = UserRole.USER
    ) -> User:
        """Create an account.

        Raises:
            ConflictError: the name or the address is taken.
            RateLimitedError: too many registrations from this address.
        """
        await self._limiter.check("register", f"address:{address}")
        return await self.create(username, email, password, role)

    async def create(self, username: str, email: str, password: str, role: UserRole) -> User:
        """Create an account without asking any limit: the command line's way."""
        hashed = await self._passwords.hash(password)
        user = await self._registry.create_user(NewUser(username, email, hashed, role), self._now())
        self._audit("user.registered", user.id, {"username": user.username})
        return user

    async def login(self, username_or_email: str, password: str, address: str) -> SignedIn:
        """Begin a session.

        Raises:
            NotAuthenticatedError: the same, after the same time, whatever was wrong.
            RateLimitedError: too many attempts from this address or on this account.
        """
        account = username_or_email.casefold()
        await self._limiter.check("login", f"address:{address}")
        await self._limiter.check_failures(account)
        found = await self._registry.credentials(username_or_email)
        right, renewed = await self._passwords.verify(password, found[1] if found else None)
        if found is None or not right or not found[0].is_active:
            await self._limiter.note_failure(account)
            self._audit("user.login_failed", found[0].id if found else None, {"address": address})
            raise NotAuthenticatedError(
                "Username or password is wrong.", code="invalid_credentials"
            )
        user = found[0]
        await self._registry.note_login(user.id, self._now(), renewed)
        self._audit("user.logged_in", user.id, {"address": address})
        return await self._begin_session(await self._registry.user(user.id) or user)

    async def _begin_session(self, user: User) -> SignedIn:
        family, now, refresh = secrets.token_hex(16), self._now(), new_secret(REFRESH_TOKEN_PREFIX)
        token = NewRefreshToken(user.id, family, refresh.digest, now + self._refresh_lifetime)
        await self._registry.add_refresh_token(token, now)
        return self._signed_in(user, family, refresh, now)

    def _signed_in(self, user: User, family: str, refresh: NewSecret, now: datetime) -> SignedIn:
        access = self._tokens.issue(user.id, family, now)
        return SignedIn(user, access, refresh.secret, self._tokens.lifetime_s)

    async def refresh(self, refresh_token: str) -> SignedIn:
        """Exchange a refresh token for new ones; a token works once.

        Raises:
            NotAuthenticatedError: it opens nothing. Used a second time, it ends its session.
        """
        now, successor = self._now(), new_secret(REFRESH_TOKEN_PREFIX)
        rotated = await self._registry.rotate_refresh_token(
            digest_of(refresh_token), successor.digest, now + self._refresh_lifetime, now
        )
        if rotated is None:
            raise NotAuthenticatedError(
                "This refresh token opens nothing. Sign in again.", code="invalid_refresh_token"
            )
        user, family = rotated
        return self._signed_in(user, family, successor, now)

    async def logout(self, refresh_token: str) -> None:
        """End the session of a refresh token; unknown tokens are ignored."""
        await self._registry.end_session(digest_of(refresh_token), self._now())

    async def user_of(self, access_token: str) -> User:
        """Whose access token it is.

        Raises:
            NotAuthenticatedError: it is not valid, or its user is gone or deactivated.
        """
        user_id = self._tokens.read(access_token).user_id
        user = self._users.get(user_id)
        if user is None:
            user = await self._lookups.run(user_id, lambda: self._registry.user(user_id))
            if user is not None:
                self._users.put(user_id, user)
        if user is None or not user.is_active:
            raise NotAuthenticatedError("This account is not active.", code="account_inactive")
        return user

    def _audit(self, event_type: str, user_id: int | None, details: dict[str, str]) -> None:
        self._log_event(
            Event(uuid4().hex, event_type, int(self._now_s() * 1000), user_id, None, details)
        )
