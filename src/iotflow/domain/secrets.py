"""Keys and tokens: how they look, and the digest that is kept of them."""

import hashlib
import secrets
from dataclasses import dataclass

DEVICE_KEY_PREFIX = "iotd_"
REFRESH_TOKEN_PREFIX = "iotr_"
PERSONAL_TOKEN_PREFIX = "iotp_"
INVITATION_PREFIX = "ioti_"
_RANDOM_BYTES = 32
_SHOWN = 8  # random characters that a prefix shows: enough to tell keys apart, no help in guessing
DEVICE_KEY_LENGTH = len(DEVICE_KEY_PREFIX) + 43
PERSONAL_TOKEN_LENGTH = len(PERSONAL_TOKEN_PREFIX) + 43


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret at the only moment when it is known."""

    secret: str
    digest: str
    prefix: str

    def __repr__(self) -> str:
        return f"NewSecret({self.prefix}…)"


def digest_of(secret: str) -> str:
    """SHA-256 in lower-case hex. Secrets of 256 random bits need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def new_secret(prefix: str) -> NewSecret:
    """A secret of 256 random bits."""
    secret = prefix + secrets.token_urlsafe(_RANDOM_BYTES)
    return NewSecret(secret, digest_of(secret), secret[: len(prefix) + _SHOWN])
