"""The networks from which a key works, in CIDR notation (RFC 4632, RFC 4291)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network

from keyguard.core.identity.addresses import parse_address
from keyguard.exceptions import InvalidValueError, shown

_MOST = 100


def parse_networks(
    networks: Iterable[str], what: str = "allowed_networks", *, most: int = _MOST
) -> tuple[str, ...]:
    """Return networks as a store keeps them: in the shortest spelling, sorted, without duplicates.

    Args:
        networks: IPv4 or IPv6 networks such as ``192.0.2.0/24``, or single addresses. An
            IPv4-mapped IPv6 network stands for the IPv4 network.
        what: The name of the argument, for an error message.
        most: The largest number of networks.

    Raises:
        InvalidValueError: A network is malformed or has bits set beyond its prefix, or there are
            too many.
    """
    if isinstance(networks, tuple) and not networks:
        return networks
    if isinstance(networks, str):
        raise InvalidValueError(f"{what} are a list: write [{shown(networks)}]")
    if not isinstance(networks, Iterable):
        raise InvalidValueError(f"{what} are a list, not {type(networks).__name__}")
    found = {str(_parse(network)) for network in networks}
    if len(found) > most:
        raise InvalidValueError(f"{what} take at most {most} networks, not {len(found)}")
    return tuple(sorted(found))


def contains(networks: tuple[str, ...], address: str | None) -> bool:
    """Return whether an address lies in one of the networks.

    Args:
        networks: As :func:`parse_networks` returned them.
        address: The client's address as the server gives it; None, for unknown, lies in no
            network.
    """
    client = None if address is None else parse_address(address)
    return client is not None and any(client in network for network in _compiled(networks))


def within_networks(inner: tuple[str, ...], outer: tuple[str, ...]) -> bool:
    """Return whether the inner networks lie within the outer ones; no networks mean every address.

    Args:
        inner: As :func:`parse_networks` returned them.
        outer: As :func:`parse_networks` returned them.
    """
    if not outer or inner == outer:
        return True
    if not inner:
        return False
    compiled = _compiled(outer)
    # Adjacent networks are joined, because two halves allow the whole.
    v4 = [*collapse_addresses(net for net in compiled if isinstance(net, IPv4Network))]
    v6 = [*collapse_addresses(net for net in compiled if isinstance(net, IPv6Network))]
    return all(
        any(network.subnet_of(other) for other in v4)
        if isinstance(network, IPv4Network)
        else any(network.subnet_of(other) for other in v6)
        for network in _compiled(inner)
    )


@lru_cache(1024)
def _compiled(networks: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, networks))


def _parse(network: object) -> IPv4Network | IPv6Network:
    try:
        return _network(network if isinstance(network, str) else "")
    except ValueError:
        raise InvalidValueError(
            f"{shown(str(network))} is not a valid network: use CIDR notation such as "
            "192.0.2.0/24 or 2001:db8::/32, with no bit set after the prefix"
        ) from None


@lru_cache(1024)  # each look-up of a key reads its networks
def _network(text: str) -> IPv4Network | IPv6Network:
    parsed = ip_network(text)
    mapped_bits = 96
    if isinstance(parsed, IPv6Network) and parsed.prefixlen >= mapped_bits:
        mapped = parsed.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((int(mapped), parsed.prefixlen - mapped_bits))
    return parsed


def stored_networks(text: str) -> tuple[str, ...]:
    """Return the networks of a stored text, which are separated by spaces.

    Raises:
        ValueError: The text names no network. A key that works from every network has no text.
    """
    networks = tuple(text.split())
    if not networks:
        raise ValueError("the text names no network")
    return networks
