"""Access tokens: short-lived JWTs, signed with the service's secret."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import jwt

from iotflow.errors import NotAuthenticatedError

# Any: its signatures name types of optional packages.
_jwt: Any = jwt
_ALGORITHM = "HS256"
_ISSUER = "iotflow"
_MAX_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a valid token says: whose it is and which login it came from."""

    user_id: int
    session: str


class AccessTokens:
    """Issues and reads access tokens. `lifetime_s` is in seconds."""

    def __init__(self, secret: str, lifetime_s: int) -> None:
        self._secret = secret
        self.lifetime_s = lifetime_s

    def issue(self, user_id: int, session: str, now: datetime) -> str:
        claims = {
            "iss": _ISSUER,
            "sub": str(user_id),
            "sid": session,
            "iat": now,
            "exp": now + timedelta(seconds=self.lifetime_s),
        }
        return _jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def read(self, token: str) -> AccessToken:
        """Raises NotAuthenticatedError for whatever is not a live token of ours."""
        if len(token) > _MAX_LENGTH:
            raise NotAuthenticatedError("This is not an access token.")
        try:
            claims: dict[str, Any] = _jwt.decode(
                token,
                self._secret,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                options={"require": ["exp", "iat", "sub", "sid"]},
            )
            return AccessToken(int(claims["sub"]), str(claims["sid"]))
        except jwt.ExpiredSignatureError:
            raise NotAuthenticatedError(
                "This access token has expired. Refresh it or sign in again.", code="token_expired"
            ) from None
        except (jwt.InvalidTokenError, ValueError):
            raise NotAuthenticatedError("This is not an access token.") from None
