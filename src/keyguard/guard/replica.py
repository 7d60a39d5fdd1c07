"""The read replica, as requests use it.

A replica may be behind the primary, so its answer is trusted only as far as the change feed, which
asks the primary, vouches for it. The replica must have reached a position at which the feed has
ended, and no change of the key or its organization may have been read since. Such an answer is as
old as the feed's last one, so ``max_staleness`` bounds it like any other. A replica's answer can
only let a request in. Before a refusal, and when the answer can't be trusted, the primary is asked.

Requests do not use a replica that fails or is at another position. The background work asks it
instead, so that no request waits for it. Once it is in step, requests use it again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from keyguard.core.access.ports import Found
from keyguard.core.keys.records import KeyRecord
from keyguard.exceptions import ConfigurationError, CorruptDataError, StoreUnavailableError
from keyguard.freshness.background import ReplicaCare
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.guard.store_ports import in_time
from keyguard.runtime import events
from keyguard.runtime.deadlines import remaining, within
from keyguard.runtime.process import Clock
from keyguard.settings.config import Settings
from keyguard.settings.hashing import scheme_of
from keyguard.stores.base import AsyncReplica, Reading, Replica

NO_KEY = "0" * 16
"""An id that no key has."""


def another_history(place: str) -> str:
    """Return the error for a server at a position that its primary never had."""
    return (
        f"{place} holds another history than the key store: it is no replica of it, or one of them "
        "was restored from a backup"
    )


class ReplicaPort(ReplicaCare):
    """A read replica, in either flavour. With one for sync code no method suspends.

    Args:
        replica: The replica.
        tokens: The memory of verified tokens. It decides which answers can be trusted.
        settings: The settings of the service.
        clock: Where time comes from.
        tell: Reports its failures and recoveries to the hooks.

    Raises:
        ConfigurationError: ``max_staleness`` is 0.
    """

    def __init__(
        self,
        replica: Replica | AsyncReplica,
        tokens: VerifiedTokens,
        settings: Settings,
        *,
        clock: Clock,
        tell: Callable[[events.Event], None],
    ) -> None:
        if settings.max_staleness == 0:
            raise ConfigurationError(
                "max_staleness=0 looks every key up anew, and a read replica may be behind; leave "
                "one of the two out"
            )
        self._replica = replica
        self._tokens = tokens
        self._peppers = {"", *settings.token_hasher.pepper_ids}
        self._max_staleness = settings.max_staleness
        self._timeout = settings.store_timeout / 2
        self._clock = clock
        self._tell = tell
        self._is_in_step = False
        self._behind_since: float | None = None
        self._failed_at: float | None = None

    async def find_key(self, key_id: str) -> Found | None:
        """Look a key up for a request; return None where the primary must be asked."""
        if not self._is_in_step:
            return None
        left = remaining()
        try:
            # So that there is time to ask the primary.
            record, position = await self._read(key_id, self._timeout if left is None else left / 2)
        except CorruptDataError:  # only this record is damaged; the primary decides
            return None
        except Exception:  # noqa: BLE001 - the background work finds out what it is
            self._is_in_step = False
            return None
        if record is None or not self._lets_in(record):
            return None
        if not self._tokens.knows(position):
            self._is_in_step = False
        mark = self._tokens.mark_at(position, record.key)
        return None if mark is None else (record, mark)

    async def look_after(self) -> str | None:
        """Check the replica, and let requests use it once it is in step.

        Returns:
            Its position, if no answer of the replica at that position can be trusted.
        """
        # The feed must be asked again in time.
        seconds = min(self._timeout, self._max_staleness / 4)
        try:
            with within(seconds):
                tended = self._replica.tend()
            if tended is not None:
                await in_time(seconds, tended)
            if self._is_in_step:
                return None
            _, position = await self._read(NO_KEY, seconds)
        except Exception as failure:  # noqa: BLE001 - reported once, and tried again
            self._note_failure(failure)
            return None
        if not self._tokens.knows(position):
            return position
        self._is_in_step, self._behind_since = True, None
        if self._failed_at is not None:
            lasted = self._clock.monotonic() - self._failed_at
            self._failed_at = None
            self._tell(events.ReplicaRecovered(at=self._now(), lasted=lasted))
        return None

    def note_behind(self, *, is_foreign: bool) -> None:
        """Report a replica that has been behind for too long, or that follows another key store."""
        now = self._clock.monotonic()
        if self._behind_since is None:
            self._behind_since = now
        place = self._replica.place
        if is_foreign:
            self._note_failure(ConfigurationError(another_history(place)))
        elif now - self._behind_since >= self._max_staleness:
            self._note_failure(StoreUnavailableError(f"{place} is behind the primary"))

    async def _read(self, key_id: str, seconds: float) -> Reading:
        with within(seconds):
            answer = self._replica.read_key(key_id)
        return await in_time(seconds, answer) if isinstance(answer, Awaitable) else answer

    def _lets_in(self, record: KeyRecord) -> bool:
        # No feed entry reports that a stored form was replaced, and its pepper may be retired.
        pepper = scheme_of(record.digest).partition(":")[2]
        return record.works(self._now()) and pepper in self._peppers

    def _note_failure(self, failure: Exception) -> None:
        self._is_in_step = False
        if self._failed_at is None:
            self._failed_at = self._clock.monotonic()
            self._tell(events.ReplicaFailed(at=self._now(), cause=failure))

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.time(), UTC)
