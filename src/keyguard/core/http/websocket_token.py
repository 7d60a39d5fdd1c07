"""A token in a WebSocket's subprotocol, for browsers, whose scripts can set no header fields.

The client offers ``<protocol>`` and ``<protocol>.<token>``::

    new WebSocket(url, ["keyguard.bearer", "keyguard.bearer." + token])

Both are taken off what the application sees, and the server answers the first: a browser wants one
of those that it offered, and the one with the token is never said back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError

__all__ = ["Offer", "TokenProtocol"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9.-]{0,63}\Z")

_MOST_TOKENS = 2  # which is one too many already


class Offer(NamedTuple):
    """What a client offered.

    Args:
        fields: What is to be read as its ``Authorization`` fields.
        others: The subprotocols that are the application's.
        marked: Whether the bare protocol was offered, which can be answered.
    """

    fields: tuple[Secret, ...]
    others: tuple[str, ...]
    marked: bool


class TokenProtocol:
    """The subprotocol that carries tokens.

    Args:
        name: Such as ``keyguard.bearer``.

    Raises:
        InvalidValueError: It is none.
    """

    __slots__ = ("_start", "name")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not _NAME.match(name):
            raise InvalidValueError(
                f"{name!r} is no subprotocol: use letters, digits, '.' and '-', such as "
                "'keyguard.bearer'"
            )
        self.name = name
        self._start = f"{name}."

    def read(self, lines: Iterable[str]) -> Offer:
        """Read ``Sec-WebSocket-Protocol`` fields (RFC 6455, section 11.3.4).

        Args:
            lines: The field values, one item a field line.
        """
        tokens: list[Secret] = []
        others: list[str] = []
        marked = False
        for item in (item.strip() for line in lines for item in line.split(",")):
            if item == self.name:
                marked = True
            elif not item.startswith(self._start):
                others.append(item)
            elif len(tokens) < _MOST_TOKENS:
                tokens.append(Secret(f"Bearer {item[len(self._start) :]}"))
        return Offer(fields=tuple(tokens), others=tuple(others), marked=marked)
