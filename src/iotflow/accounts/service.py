"""Accounts: registering, signing in, staying signed in, signing out."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from iotflow.accounts.attempts import SignInAttempts, account_of
from iotflow.accounts.authentication import BearerAuthenticator
from iotflow.accounts.passwords import Passwords
from iotflow.accounts.tokens import AccessToken, AccessTokens
from iotflow.domain.callers import UserCaller
from iotflow.domain.events import Event
from iotflow.domain.secrets import REFRESH_TOKEN_PREFIX, NewSecret, digest_of, new_secret
from iotflow.domain.users import User
from iotflow.errors import NotAllowedError, NotAuthenticatedError, NotFoundError
from iotflow.limits.limiter import RateLimiter
from iotflow.settings import RegistrationMode
from iotflow.stores.registry.protocol import NewRefreshToken, NewUser, Registry, Reused, Rotated


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
        bearers: BearerAuthenticator,
        limiter: RateLimiter,
        *,
        registration: RegistrationMode,
        refresh_lifetime_s: int,
        log_event: Callable[[Event], None],
        now: Callable[[], float],
    ) -> None:
        self._registry = registry
        self._passwords = passwords
        self._tokens = tokens
        self._bearers = bearers
        self._limiter = limiter
        self._attempts = SignInAttempts(limiter)
        self._registration: RegistrationMode = registration
        self._refresh_lifetime = timedelta(seconds=refresh_lifetime_s)
        self._log_event = log_event
        self._now_s = now

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_s(), UTC)

    async def register(
        self, username: str, email: str, password: str, address: str, invitation: str | None = None
    ) -> User:
        """Create an account.

        Raises:
            ConflictError: the name or the address is taken.
            NotAllowedError: registration is closed, or asks for an invitation that is not there.
            RateLimitedError: too many registrations from this address.
        """
        await self._limiter.check("register", f"address:{address}")
        digest = self._invitation(invitation)
        new = NewUser(username, email, await self._passwords.hash(password))
        user = await self._registry.create_user(new, self._now(), digest)
        self._audit("user.registered", user.id, {"username": user.username})
        return user

    def _invitation(self, code: str | None) -> str | None:
        """The digest of the invitation that is to be used up."""
        if self._registration == "closed":
            raise NotAllowedError(
                "Nobody can register here. Ask an administrator for an account.",
                code="registration_closed",
            )
        if code is None and self._registration == "invitation":
            raise NotAllowedError(
                "Registration is by invitation. Ask an administrator for one.",
                code="invitation_required",
            )
        return None if code is None else digest_of(code)

    async def login(self, username_or_email: str, password: str, address: str) -> SignedIn:
        """Begin a session.

        Raises:
            NotAuthenticatedError: the same, after the same time, whatever was wrong.
            RateLimitedError: too many attempts from this address or on this account.
        """
        await self._limiter.check("login", f"address:{address}")
        found = await self._registry.credentials(username_or_email)
        account = f"user:{found[0].id}" if found else account_of(username_or_email)
        await self._attempts.check(account, address)
        right, renewed = await self._passwords.verify(password, found[1] if found else None)
        if found is None or not right or not found[0].is_active:
            await self._attempts.note_failure(account, address)
            self._audit("user.login_failed", found[0].id if found else None, {"address": address})
            raise _wrong_credentials()
        user = found[0]
        await self._registry.note_login(user.id, self._now(), renewed)
        signed_in = await self._begin_session(user)
        self._audit("user.logged_in", user.id, {"address": address})
        return signed_in

    async def _begin_session(self, user: User) -> SignedIn:
        """`user` is as they were when the password was right: a change meanwhile counts."""
        family, now, refresh = secrets.token_hex(16), self._now(), new_secret(REFRESH_TOKEN_PREFIX)
        token = NewRefreshToken(
            user.id, family, refresh.digest, now + self._refresh_lifetime, user.token_version
        )
        try:
            await self._registry.add_refresh_token(token, now)
        except NotFoundError:
            raise _wrong_credentials() from None
        shown = await self._registry.user(user.id) or user
        return self._signed_in(replace(shown, token_version=user.token_version), family, refresh)

    def _signed_in(self, user: User, family: str, refresh: NewSecret) -> SignedIn:
        access = AccessToken(user.id, family, user.token_version)
        issued = self._tokens.issue(access, self._now())
        return SignedIn(user, issued, refresh.secret, self._tokens.lifetime_s)

    async def refresh(self, refresh_token: str, address: str) -> SignedIn:
        """Exchange a refresh token for new ones; a token works once.

        Raises:
            NotAuthenticatedError: it opens nothing. Used a second time, it ends its session.
        """
        now, successor = self._now(), new_secret(REFRESH_TOKEN_PREFIX)
        rotated = await self._registry.rotate_refresh_token(
            digest_of(refresh_token), successor.digest, now + self._refresh_lifetime, now
        )
        if isinstance(rotated, Reused):
            self._audit("user.refresh_token_reused", rotated.user_id, {"address": address})
        if not isinstance(rotated, Rotated):
            raise NotAuthenticatedError(
                "This refresh token opens nothing. Sign in again.", code="invalid_refresh_token"
            )
        return self._signed_in(rotated.user, rotated.family, successor)

    async def logout(self, refresh_token: str, address: str) -> None:
        """End the session of a refresh token; unknown tokens are ignored."""
        user_id = await self._registry.end_session(digest_of(refresh_token), self._now())
        if user_id is not None:
            self._audit("user.logged_out", user_id, {"address": address})

    async def change_password(
        self, caller: UserCaller, current: str, new: str, address: str
    ) -> None:
        """Replace the password. The session that asks goes on; all others and all tokens end.

        Raises:
            NotAllowedError: `wrong_password`, the current one is another.
            RateLimitedError: too many wrong ones.
        """
        user_id = caller.user.id
        account = f"user:{user_id}"
        await self._attempts.check(account, address)
        found = await self._registry.credentials_of(user_id)
        right, _ = await self._passwords.verify(current, found[1] if found else None)
        if not right:
            await self._attempts.note_failure(account, address)
            raise NotAllowedError("The current password is another.", code="wrong_password")
        hashed = await self._passwords.hash(new)
        await self._registry.set_password(user_id, hashed, caller.session, self._now())
        self._bearers.forget_user(user_id)
        self._audit("user.password_changed", user_id, {"address": address})

    def _audit(self, event_type: str, user_id: int | None, details: dict[str, str]) -> None:
        self._log_event(
            Event(uuid4().hex, event_type, int(self._now_s() * 1000), user_id, None, details)
        )


def _wrong_credentials() -> NotAuthenticatedError:
    return NotAuthenticatedError("Username or password is wrong.", code="invalid_credentials")
