"""Sign-in attempts: guessing is slow, and nobody locks somebody else out.

Failures are counted for each account from each network, and for each account as a whole. A
network that has failed too often at an account waits. When the whole account has had too many
failures, only networks that have not failed at it are let in to try: a guesser, who has, waits,
while the owner's first try from elsewhere goes through if it is right (docs/decisions/0012).
"""

import hashlib
from ipaddress import IPv6Address, ip_address

from iotflow.limits.limiter import RateLimiter

# One household or machine has all addresses of such a block.
_IPV6_NETWORK_BITS = 64


class SignInAttempts:
    """`account` is any stable name of an account, `address` where the attempt comes from."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    async def check(self, account: str, address: str) -> None:
        """Refuse an attempt before its password is looked at.

        Raises:
            RateLimitedError: too many have failed, and some of them came from there.
        """
        here = _from(account, address)
        await self._limiter.check_failures(here)
        if await self._limiter.has_failed(here):
            await self._limiter.check_failures(account)

    async def note_failure(self, account: str, address: str) -> None:
        """Count a failed attempt."""
        await self._limiter.note_failure(_from(account, address))
        await self._limiter.note_failure(account)


def account_of(username: str) -> str:
    """The name under which attempts at an account that does not exist are counted."""
    return "unknown:" + hashlib.sha256(username.casefold().encode()).hexdigest()[:32]


def _from(account: str, address: str) -> str:
    return f"{account}@{network_of(address)}"


def network_of(address: str) -> str:
    """The address itself, or the block of addresses that its IPv6 address is one of."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return f"{int(parsed) >> (128 - _IPV6_NETWORK_BITS):016x}"
    return str(parsed)
