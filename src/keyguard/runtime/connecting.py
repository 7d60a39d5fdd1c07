"""What holds for the connections that keyguard opens to a store across a network."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Connecting:
    """How connections are opened, and how long they are kept.

    Args:
        timeout: Seconds that opening one may take, beside the requests.
        max_age: Seconds after which one is replaced by a new one.
    """

    timeout: float = 10.0
    max_age: float = 300.0
