"""Client addresses, and the client that keyguard counts attempts and requests for."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

_LONGEST = 64
_HOST_BITS = 64


class Client(NamedTuple):
    """The client of a request, as trusted proxies name it.

    Args:
        address: Its address, a name that a proxy gives instead, or None if it is not known.
        secure: Whether its connection is encrypted.
    """

    address: str | None
    secure: bool


def parse_address(address: str) -> IPv4Address | IPv6Address | None:
    """Return a parsed address; an IPv4-mapped address as IPv4; None if it is malformed.

    Args:
        address: The address as the server gives it, with or without a zone or a port.
    """
    # A client may write anything here: the cache keeps no text that is too long for an address.
    return _parse(address) if len(address) <= _LONGEST else None


@lru_cache(4096)
def _parse(address: str) -> IPv4Address | IPv6Address | None:
    if address.startswith("["):  # with a port, as some proxies write it
        address = address[1:].partition("]")[0]
    elif address.count(":") == 1:
        address = address.partition(":")[0]
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def client_of(address: str) -> str:
    """Return the client that an address stands for.

    An IPv6 client has at least a /64 (RFC 6177), so that network is the client. An IPv4-mapped
    address is the IPv4 address. All spellings of an address return the same client.

    Args:
        address: The address as the server gives it, with or without a zone or a port.
    """
    return _client_of(address[:_LONGEST])  # it may be a name that the server made up


@lru_cache(4096)
def _client_of(address: str) -> str:
    number = parse_address(address)
    if number is None:
        return address
    if isinstance(number, IPv4Address):
        return str(number)
    return f"{IPv6Address(int(number) >> _HOST_BITS << _HOST_BITS)}/{_HOST_BITS}"
