"""Reading what Redis answered."""

from __future__ import annotations

from keyguard.exceptions import CorruptDataError
from keyguard.stores.redis.scripts import Reply


def text_of(reply: Reply) -> str:
    """Return a text, "" for None."""
    if isinstance(reply, bytes):
        return reply.decode()
    return "" if reply is None else str(reply)


def list_of(reply: Reply) -> list[Reply]:
    """Return a list.

    Raises:
        CorruptDataError: The reply is no list.
    """
    if not isinstance(reply, list):
        raise CorruptDataError(f"Redis answered a script with a {type(reply).__name__}, not a list")
    return reply


def texts_of(reply: Reply) -> list[str]:
    """Return a list of texts."""
    return [text_of(part) for part in list_of(reply)]
