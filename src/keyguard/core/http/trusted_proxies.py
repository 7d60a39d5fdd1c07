"""The client of a request that came through proxies (RFC 7239, and the older X-Forwarded-*).

keyguard believes only the proxies that the settings name. It reads a field from the right: each
trusted proxy vouches for the item that it added itself. Items that a client wrote are further left,
and are never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from keyguard.core.identity.addresses import Client, parse_address
from keyguard.core.identity.networks import contains, parse_networks
from keyguard.exceptions import InvalidValueError, shown

FORWARDING_FIELDS = ("forwarded", "x-forwarded-for", "x-forwarded-proto")
"""The header fields that this module reads, in lower case."""

MOST_BYTES, MOST_ITEMS = 8192, 32
"""How much of each field is read, in all its lines. A longer field counts as malformed."""

UNIX = "unix"
_MOST = 10_000
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 7239 as proxies write it: some leave out the quotes around a value with ':' and brackets.
_PAIR = re.compile(rf'\s*({_NAME})=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(;|,|\Z)')
_EMPTY = re.compile(r"\s*(;|,|\Z)")
_OBFUSCATED = re.compile(r"(?:_[A-Za-z0-9._-]+|unknown)(?::[A-Za-z0-9._-]+)?\Z", re.IGNORECASE)
_SCHEMES = {"https": True, "wss": True, "http": False, "ws": False}


class _Hop(NamedTuple):
    """What a proxy says about the party that sent it the request."""

    address: str | None
    secure: bool | None


class TrustedProxies:
    """The proxies that keyguard believes.

    Args:
        proxies: Their networks in CIDR notation, or single addresses; ``"unix"`` for a peer without
            an address, as behind a UNIX socket.

    Raises:
        InvalidValueError: A network is malformed.
    """

    __slots__ = ("_networks", "_unix", "names")

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        if isinstance(proxies, str):
            raise InvalidValueError(f"trusted_proxies are a list: write [{shown(proxies)}]")
        if not isinstance(proxies, Iterable):
            raise InvalidValueError(f"trusted_proxies are a list, not {type(proxies).__name__}")
        given = tuple(proxies)
        self._unix = UNIX in given
        self._networks = parse_networks(
            tuple(proxy for proxy in given if proxy != UNIX), "trusted_proxies", most=_MOST
        )
        self.names = (*self._networks, *((UNIX,) if self._unix else ()))

    def __bool__(self) -> bool:
        return bool(self.names)

    def client(
        self, peer: str | None, fields: Mapping[str, Sequence[str]], *, secure: bool
    ) -> Client | None:
        """Return the client of a request.

        Args:
            peer: The address of the other end of the connection; None or empty if it has none.
            fields: The values of :data:`FORWARDING_FIELDS`, one item for each field line.
            secure: Whether that connection is encrypted.

        Returns:
            The client; None if the fields of trusted proxies are malformed, too long, or
            contradict each other.
        """
        if not self.trusts(peer):
            return Client(peer or None, secure)
        if any(map(_is_too_long, fields.values())):
            return None
        try:
            found = [
                self._walk(hops)
                for hops in (_read_forwarded(fields), _read_older(fields))
                if hops is not None
            ]
        except ValueError:
            return None
        if not found:
            return Client(peer or None, secure)
        first, *others = found
        if any(other != first for other in others):
            return None
        # If a proxy does not give the scheme, it is that of the proxy's own connection.
        return Client(
            first.address or peer or None, secure if first.secure is None else first.secure
        )

    def trusts(self, address: str | None) -> bool:
        """Return whether the other end of a connection is a trusted proxy."""
        return contains(self._networks, address) if address else self._unix

    def _walk(self, hops: Iterable[_Hop]) -> _Hop:
        """Follow hops, nearest first, as long as each comes from a trusted proxy."""
        client = _Hop(None, None)
        for client in hops:
            if client.address is None or not self.trusts(client.address):
                break
        return client


def _is_too_long(lines: Sequence[str]) -> bool:
    """Return whether a field is longer than keyguard reads, without reading an item."""
    return (
        sum(map(len, lines)) > MOST_BYTES
        or len(lines) + sum(line.count(",") for line in lines) > MOST_ITEMS
    )


def _read_forwarded(fields: Mapping[str, Sequence[str]]) -> Iterator[_Hop] | None:
    """Return the hops of ``Forwarded``, nearest first; None if there are none.

    Raises:
        ValueError: The field is malformed.
    """
    elements = [element for line in fields.get("forwarded", ()) for element in _elements(line)]
    return map(_hop, reversed(elements)) if any(elements) else None


def _hop(element: Mapping[str, str]) -> _Hop:
    address, proto = element.get("for"), element.get("proto")
    return _Hop(
        None if address is None else _node(address), None if proto is None else _is_secure(proto)
    )


def _elements(line: str) -> list[dict[str, str]]:
    elements: list[dict[str, str]] = [{}]
    at = 0
    while at < len(line):
        empty = _EMPTY.match(line, at)
        pair = None if empty else _PAIR.match(line, at)
        if empty is not None:
            end, at = empty[1], empty.end()
        elif pair is not None:
            name, quoted, plain, end = pair.groups()
            value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            if name.lower() in elements[-1]:
                raise ValueError(name)
            elements[-1][name.lower()] = value
            at = pair.end()
        else:
            raise ValueError("no forwarded-pair")
        if end == ",":
            elements.append({})
    return elements


def _read_older(fields: Mapping[str, Sequence[str]]) -> Iterator[_Hop] | None:
    """Return the hops of ``X-Forwarded-*``, nearest first; None if there are none.

    The fields do not show which scheme belongs to which hop, so a hop counts as encrypted only if
    all schemes are.
    """
    addresses = _items(fields.get("x-forwarded-for", ()))
    schemes = _items(fields.get("x-forwarded-proto", ()))
    secure = all(map(_is_secure, schemes)) if schemes else None
    if not addresses:
        # A proxy that sets only the scheme means the party that sent it the request.
        return iter([_Hop(None, secure)]) if schemes else None
    return (_Hop(_node(address), secure) for address in reversed(addresses))


def _items(lines: Sequence[str]) -> list[str]:
    items = [item.strip() for line in lines for item in line.split(",")]
    return items if any(items) else []


def _node(text: str) -> str:
    address = parse_address(text)
    if address is None and not _OBFUSCATED.match(text):
        raise ValueError("no node")
    return text if address is None else str(address)


def _is_secure(scheme: str) -> bool:
    secure = _SCHEMES.get(scheme.lower())
    if secure is None:
        raise ValueError("no scheme")
    return secure
