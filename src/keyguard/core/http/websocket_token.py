"""A token in the subprotocol of a WebSocket, because scripts in browsers can't set header fields.

The client offers ``<protocol>`` and ``<protocol>.<token>``::

    new WebSocket(url, ["keyguard.bearer", "keyguard.bearer." + token])

The application sees neither. The server answers with ``<protocol>``, because a browser expects one
of the subprotocols that it offered, and the token must not be sent back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import InvalidValueError, shown

_NAME = r"[A-Za-z][A-Za-z0-9.-]{0,63}\Z"

_MOST_TOKENS = 2  # more than one is refused


class Offer(NamedTuple):
    """The subprotocols that a client offered.

    Args:
        fields: The tokens, as values of ``Authorization`` fields.
        others: The subprotocols of the application.
        marked: Whether the client offered the bare protocol, which the server can answer with.
    """

    fields: tuple[Secret, ...]
    others: tuple[str, ...]
    marked: bool


class TokenProtocol:
    """The subprotocol that carries tokens.

    Args:
        name: Such as ``keyguard.bearer``.

    Raises:
        InvalidValueError: The name can't be a subprotocol.
    """

    __slots__ = ("_start", "name")

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not re.match(_NAME, name):
            raise InvalidValueError(
                f"{shown(name)} is not a valid subprotocol: use letters, digits, '.' and '-', "
                "such as 'keyguard.bearer'"
            )
        self.name = name
        self._start = f"{name}."

    def read(self, lines: Iterable[str]) -> Offer:
        """Read ``Sec-WebSocket-Protocol`` fields (RFC 6455, section 11.3.4).

        Args:
            lines: The field values, one item for each field line.
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
