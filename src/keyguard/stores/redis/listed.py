"""The records of a list in Redis, and their order."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from keyguard.stores.redis.hashes import time_text


class Listed(NamedTuple):
    """The records of a list, and their order.

    Args:
        kind: The kind of record.
        by: The index that leads to them.
        owner: The id of the only organization whose records are wanted, or None.
        times: ``ends_before``, ``unused_since``, ``alive_at`` and ``ended_before`` of a
            :class:`KeyFilter`.
        open_at: For an index of open requests, the second at which they are open.
        search: What its entries begin with.
        order: What they are ordered by: ``created_at``, ``name`` or ``id``.
    """

    kind: str
    by: str
    owner: str | None = None
    times: tuple[str, ...] = ("", "", "", "")
    open_at: str = ""
    search: str = ""
    order: str = "created_at"

    def entry(self, key_id: str, created_at: datetime, name: str) -> str:
        """Return the entry of a key in the list's index."""
        match self.order:
            case "id":
                return key_id
            case "name":
                return f"{name}\0{key_id}"
            case _:
                return f"{time_text(created_at)} {key_id}"
