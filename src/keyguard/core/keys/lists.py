"""What lists of keys take and give: the filter of a list of keys, and the digests of keys.

Management asks for these lists, and stores answer. Nothing else imports this.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime

from keyguard.core.keys.records import Key
from keyguard.core.values import Value
from keyguard.exceptions import InvalidValueError

_ID_START = r"[0-9A-Za-z]{4,16}\Z"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class KeyFilter(Value):
    """Which keys to list; all if no field is set.

    Args:
        organization: The id of the organization that owns them.
        family: Their family.
        ends_before: Keys that end before this time, and have not ended by ``alive_at``.
        unused_since: Keys that were issued before this time, and not let in since.
        alive_at: Keys that keyguard can still let in at this time or later.
        ended_before: Keys that ended before this time.
        owner: Who holds them.
        search: The beginning of their name or, with at least 4 characters, of their id. Case
            counts. It needs an organization. Keys whose id begins with it are listed first, by id;
            the others follow by name and then id.
    """

    organization: str | None = None
    family: str | None = None
    ends_before: datetime | None = None
    unused_since: datetime | None = None
    alive_at: datetime | None = None
    ended_before: datetime | None = None
    owner: str | None = None
    search: str | None = None

    def __post_init__(self) -> None:
        if self.search is not None and self.organization is None:
            raise InvalidValueError("a search for keys takes an organization")

    def finds_id(self, key_id: str) -> bool:
        """Return whether the search finds a key by that id."""
        return re.match(_ID_START, self.search or "") is not None and key_id.startswith(
            self.search or ""
        )

    def place(self, key: Key) -> tuple[bool, str, str]:
        """Return the sort key of a key that a search finds."""
        is_named = not self.finds_id(key.id)
        return is_named, key.name if is_named else "", key.id

    def admits(self, key: Key) -> bool:
        """Return whether the filter admits a key."""
        if not (key.name.startswith(self.search or "") or self.finds_id(key.id)):
            return False
        if self.organization not in (None, key.organization):
            return False
        if self.family not in (None, key.family):
            return False
        if self.owner not in (None, key.owner):
            return False
        end = key.ends_at
        if self.alive_at is not None and (
            key.revoked_at is not None or (end is not None and end <= self.alive_at)
        ):
            return False
        if self.ends_before is not None and (end is None or end >= self.ends_before):
            return False
        stop = key.stops_at
        if self.ended_before is not None and (stop is None or stop >= self.ended_before):
            return False
        if self.unused_since is None:
            return True
        return (key.last_used_at or key.created_at) < self.unused_since


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeyDigest(Value):
    """The stored form of a key's token.

    Args:
        id: The key's id.
        digest: The stored form.
    """

    id: str
    digest: str = field(repr=False)
