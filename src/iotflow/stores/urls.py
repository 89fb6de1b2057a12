"""URLs of stores, which may name several hosts."""

import re
from urllib.parse import SplitResult

# RFC 3986, appendix B.
_PARTS = re.compile(r"(?:([^:/?#]+):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)


def split_url(url: str) -> SplitResult:
    """As `urllib.parse.urlsplit`, which no store's URL may go through: newer versions of Python
    refuse a list of hosts that has an IPv6 address in it. Whoever asks checks the parts; nothing
    is refused here, and nothing is decoded.
    """
    found = _PARTS.fullmatch(url)
    scheme, *others = found.groups("") if found else ("", "", url, "", "")
    return SplitResult(scheme.lower(), *others)
