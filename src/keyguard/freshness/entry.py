"""An entry of the memory of verified tokens, with the counts of requests in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from keyguard.core.access.decisions import Allow
from keyguard.core.keys.records import Use

FAR_PAST = float("-inf")

_MINUTE = 60


@dataclass(slots=True, eq=False, repr=False)
class Entry:
    """A token that was verified."""

    allow: Allow
    digest: str  # the stored digest that the token matched
    not_before: float
    ends_at: float
    fresh_until: float
    dies_at: float
    is_timed: bool  # whether the time of day decides, too
    used_at: float = FAR_PAST  # on the monotonic clock
    told_at: float = 0.0  # the minute of the last use that was passed to the store
    allowed: int = 0  # how often recall has let it in
    taken: int = 0  # how much of that take_allowed has returned
    dropped_at: float = 0.0

    def take_allowed(self) -> int:
        """Return how often ``recall`` let the principal in since the last call."""
        more = self.allowed - self.taken
        self.taken += more
        return more

    def take_needed(self) -> frozenset[str]:
        """Return the scopes that requests needed and the principal had, since the last call."""
        sets = tuple(self.allow.needed)
        self.allow.needed.clear()  # what comes in between is asked for again
        return frozenset[str]().union(*sets)

    def take_use(self, offset: float) -> Use | None:
        """Return the last use by ``recall``, to the minute, if it was not taken before.

        Args:
            offset: The time of day less that of the monotonic clock, in seconds.
        """
        minute = (offset + self.used_at) // _MINUTE * _MINUTE
        if minute > self.told_at:  # which no number is that comes from the far past
            self.told_at = minute
            return Use(self.allow.principal.key_id, datetime.fromtimestamp(minute, UTC))
        return None
