"""Sightings of keys: the networks that they came from, and the scopes that they needed.

A sighting is kept as a cell whose tag says what was seen, under an id that no organization has. So
every store of usage can keep it, and no report counts it. It is noted at its first time in 30 days,
in each process.
"""

from __future__ import annotations

import enum
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_network

SEEN = "seen"
"""The outcome of such a cell."""

LONGEST_SEEN = 64
"""What a tag can hold, in characters."""

SEEN_EVERY = timedelta(days=30)
SIGHTINGS_KEPT = timedelta(days=150)


class Sighting(enum.StrEnum):
    """The kind of a sighting."""

    NETWORK = "net"
    SCOPE = "sco"

    def owner(self, organization: str) -> str:
        """Return the id under which an organization's sightings are kept."""
        return f"{self.value}_{organization.removeprefix('org_')}"


def network_of(address: IPv4Address | IPv6Address) -> str:
    """Return the network of a client: what one subscriber or site has at most, as a rule."""
    return str(ip_network((address, 24 if address.version == 4 else 48), strict=False))
