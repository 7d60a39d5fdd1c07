"""Who a request is from, where proxies stand in between (RFC 7239, and the older X-Forwarded-*).

A proxy is believed only where it is named as trusted, and a field is walked from the right: each
trusted proxy vouches for the one item that it added itself. What a client wrote stands further left
and is never reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from keyguard.exceptions import InvalidValueError
from keyguard.sansio.addresses import parse_address
from keyguard.sansio.networks import contains, parse_networks

__all__ = ["FORWARDING_FIELDS", "Client", "TrustedProxies"]

FORWARDING_FIELDS = ("forwarded", "x-forwarded-for", "x-forwarded-proto")
"""The fields that are read, in lower case."""

T = TypeVar("T")

UNIX = "unix"
_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 7239 as proxies send it: some leave the quotes out where a value holds ':' and brackets.
_PAIR = re.compile(rf'\s*({_NAME})=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(;|,|\Z)')
_EMPTY = re.compile(r"\s*(;|,|\Z)")
_OBFUSCATED = re.compile(r"(?:_[A-Za-z0-9._-]+|unknown)(?::[A-Za-z0-9._-]+)?\Z", re.IGNORECASE)
_SCHEMES = {"https": True, "wss": True, "http": False, "ws": False}


@dataclass(frozen=True, slots=True)
class Client:
    """The other end of a request, as far as it can be believed.

    Args:
        address: Its address, a name that a proxy gives instead, or None where nobody says.
        secure: Whether its connection is encrypted.
    """

    address: str | None
    secure: bool


class _Hop(NamedTuple):
    """What one proxy says of who asked it."""

    address: str | None
    secure: bool | None


class TrustedProxies:
    """The proxies that are believed.

    Args:
        proxies: Their networks in CIDR notation, or single addresses; ``"unix"`` for a peer without
            an address, as behind a UNIX socket.

    Raises:
        InvalidValueError: One is none.
    """

    __slots__ = ("_networks", "_unix", "names")

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        if isinstance(proxies, str):
            raise InvalidValueError(f"trusted_proxies are a list: write [{proxies[:80]!r}]")
        if not isinstance(proxies, Iterable):
            raise InvalidValueError(f"trusted_proxies are a list, not {type(proxies).__name__}")
        given = tuple(proxies)
        self._unix = UNIX in given
        self._networks = parse_networks(tuple(one for one in given if one != UNIX))
        self.names = (*self._networks, *((UNIX,) if self._unix else ()))

    def __bool__(self) -> bool:
        return bool(self.names)

    def client(
        self, peer: str | None, fields: Mapping[str, Sequence[str]], *, secure: bool
    ) -> Client | None:
        """Return who a request is from.

        Args:
            peer: The address of who holds the connection; None or empty where it has none.
            fields: The values of :data:`FORWARDING_FIELDS`, one item a field line.
            secure: Whether that connection is encrypted.

        Returns:
            The client; None where trusted proxies contradict themselves or each other, or say what
            can't be read: then nobody knows who it is.
        """
        if not self._trusts(peer):
            return Client(peer or None, secure)
        try:
            standard = self._walk(_read_forwarded(fields.get("forwarded", ())))
            older = self._walk(_read_older(fields))
            address = _agreed(standard.address, older.address)
            encrypted = _agreed(standard.secure, older.secure)
        except ValueError:
            return None
        # A proxy that does not say how it was asked, was asked as it asks itself.
        return Client(address or peer or None, secure if encrypted is None else encrypted)

    def _trusts(self, address: str | None) -> bool:
        return contains(self._networks, address) if address else self._unix

    def _walk(self, hops: Iterable[_Hop]) -> _Hop:
        """Follow hops, the nearest first, as far as each is from a trusted proxy."""
        client = _Hop(None, None)
        for client in hops:
            if client.address is None or not self._trusts(client.address):
                break
        return client


def _read_forwarded(lines: Sequence[str]) -> list[_Hop]:
    hops: list[_Hop] = []
    for element in (element for line in lines for element in _elements(line)):
        address, proto = element.get("for"), element.get("proto")
        if address is not None or proto is not None:  # and not only "by" or "host"
            hops.append(
                _Hop(
                    None if address is None else _node(address),
                    None if proto is None else _is_secure(proto),
                )
            )
    return hops[::-1]


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
    return [element for element in elements if element]


def _read_older(fields: Mapping[str, Sequence[str]]) -> Iterator[_Hop]:
    addresses = _items(fields.get("x-forwarded-for", ()))
    schemes = [_is_secure(one) for one in _items(fields.get("x-forwarded-proto", ()))]
    if not addresses:
        # Who sets only the scheme says nothing of the client: it is who asked.
        if schemes:
            yield _Hop(None, all(schemes))
    elif len(schemes) == len(addresses):
        for address, secure in zip(reversed(addresses), reversed(schemes), strict=True):
            yield _Hop(_node(address), secure)
    else:
        # They can't be told apart: encrypted is only what all say is.
        for address in reversed(addresses):
            yield _Hop(_node(address), all(schemes) if schemes else None)


def _items(lines: Sequence[str]) -> list[str]:
    return [item.strip() for line in lines for item in line.split(",") if item.strip()]


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


def _agreed(one: T | None, other: T | None) -> T | None:
    if one is not None and other is not None and one != other:
        raise ValueError("they disagree")
    return other if one is None else one
