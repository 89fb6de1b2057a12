"""Access tokens: short-lived JWTs, signed with the service's secret."""

from collections.abc import Sequence
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
_REQUIRED = ["exp", "iat", "sub", "sid", "ver"]


@dataclass(frozen=True, slots=True)
class AccessToken:
    """What a valid token says: whose it is and which login it came from.

    `version` is the user's `token_version` when it was issued.
    """

    user_id: int
    session: str
    version: int


class AccessTokens:
    """Issues and reads access tokens. `lifetime_s` is in seconds.

    The first of the secrets signs; tokens of the others are read too, so that a secret can be
    changed without signing anyone out.
    """

    def __init__(self, secrets: Sequence[str], lifetime_s: int) -> None:
        self._secrets = tuple(secrets)
        self.lifetime_s = lifetime_s

    def issue(self, token: AccessToken, now: datetime) -> str:
        claims = {
            "iss": _ISSUER,
            "sub": str(token.user_id),
            "sid": token.session,
            "ver": token.version,
            "iat": now,
            "exp": now + timedelta(seconds=self.lifetime_s),
        }
        return _jwt.encode(claims, self._secrets[0], algorithm=_ALGORITHM)

    def read(self, token: str) -> AccessToken:
        """Raises NotAuthenticatedError for whatever is not a live token of ours."""
        if len(token) > _MAX_LENGTH:
            raise NotAuthenticatedError("This is not an access token.")
        try:
            claims = self._claims(token)
            return AccessToken(int(claims["sub"]), str(claims["sid"]), int(claims["ver"]))
        except jwt.ExpiredSignatureError:
            raise NotAuthenticatedError(
                "This access token has expired. Refresh it or sign in again.", code="token_expired"
            ) from None
        except (jwt.InvalidTokenError, ValueError, TypeError):
            raise NotAuthenticatedError("This is not an access token.") from None

    def _claims(self, token: str) -> dict[str, Any]:
        *others, last = self._secrets
        for secret in others:
            try:
                return _decode(token, secret)
            except jwt.InvalidSignatureError:
                continue
        return _decode(token, last)


def _decode(token: str, secret: str) -> dict[str, Any]:
    # The algorithm is ours to say, never the token's.
    return _jwt.decode(
        token, secret, algorithms=[_ALGORITHM], issuer=_ISSUER, options={"require": _REQUIRED}
    )
