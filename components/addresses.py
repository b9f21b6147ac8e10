"""Addresses as people may see them: without the user, password or signature that they may carry.

What belongs here: taking credentials out of addresses, and out of messages that hold addresses. What does not: using an
address (whoever connects needs all of it).
"""

import re

_USER = re.compile(r"(?<=://)[^/\s'\"<>]*@")
_SIGNED = re.compile(
    r"([?&](?:[\w-]*(?:signature|credential|token|password|passwd|secret|apikey|api_key|access_?key(?:_?id)?)|sig)=)"
    r"[^&#\s'\"<>]+",
    re.IGNORECASE,
)


def without_credentials(text: str) -> str:
    """An address, or a message with addresses in it, that may be shown and kept.

    ``https://me:secret@host/a?sig=abc`` becomes ``https://host/a?sig=...``; what holds no credential stays as it is.
    """
    return _SIGNED.sub(r"\1...", _USER.sub("", text)) if "://" in text else text


def has_credentials(address: str) -> bool:
    """Whether an address carries a user, a password or a signature."""
    return without_credentials(address) != address
