"""The counts of a guard: requests that were let in, refusals by reason, and costs.

On the warm path a request adds one to an integer of the entry that let it in
(:meth:`~keyguard.freshness.verified_tokens.VerifiedTokens.recall`). These integers never go back
and carry no time: they are *collected* into cells in the background, and cells are sent to the
store as flushes. Any other request of a known key is counted in a cell at once. Metrics read the
same counts.

A request is counted once. If it was let in and is refused later, or gets a tag, it is moved from
one cell to another. A move waits until the request has been collected. If the store has that
request already, the move waits for the key's next one.
"""

from __future__ import annotations

import secrets
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable

from keyguard.core.access.decisions import Allow, Decision, Deny
from keyguard.core.identity.principal import Principal
from keyguard.core.usage.sightings import LONGEST_SEEN, SEEN, SEEN_EVERY, Sighting
from keyguard.core.usage.values import ALLOWED, Flush
from keyguard.freshness.usage_cells import UsageCells, What, Who, instant
from keyguard.freshness.verified_tokens import MOST_DROPPED, VerifiedTokens
from keyguard.runtime.process import Clock, after_fork

MOST_SEEN = 50_000
"""What keys were seen with that a process notes in 30 days, at most."""

MOST_SEEN_OF_KEY = 100
"""The same for one key and one kind, so that no key takes the room of the others."""

SIGN_OF_LIFE = 60.0
"""Seconds after which a writer that has nothing to tell says that it lives."""

GIVEN_UP = 3600.0
"""Seconds of silence after which others may give a writer up."""

_LONGEST_WAY = 60.0  # seconds for which a call that was given up may still reach the store


class UsageCounts:
    """The counts of one guard in one process.

    Attributes:
        has_more: Whether more had been counted when :meth:`next_flush` returned the last flush.
        keeps: Whether a store takes cells.
        led: Look-ups that asked the store; :class:`~keyguard.freshness.lookups.Lookups` adds here.
        shared: Look-ups that waited for the answer to another.

    Args:
        tokens: Counts on the warm path.
        clock: Where time comes from.
        bucket: The seconds of a bucket.
        keeps: Whether a store takes cells. Otherwise only the totals for metrics are kept.
    """

    def __init__(
        self, tokens: VerifiedTokens, *, clock: Clock, bucket: int = 900, keeps: bool = True
    ) -> None:
        self._tokens = tokens
        self._time = clock.time
        self._bucket = bucket
        self.keeps = keeps
        self._apart: frozenset[str] = frozenset()  # organizations that metrics tell apart
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        # A forked child is a writer of its own, and does not write its parent's counts.
        self._lock = threading.Lock()
        self._outcomes: defaultdict[str, int] = defaultdict(int)
        self._outcomes_of: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._shown = 0
        self._hits = 0
        self.led = 0
        self.shared = 0
        self._cells = UsageCells()
        self._seen: dict[tuple[str, str], set[str]] = {}  # by owner and key: sightings
        self._seen_in = self._seen_size = 0
        self._collected_at = self._time()
        self._start = self._start_of(self._collected_at)
        self._told_at = self._collected_at
        self._until = self._collected_at
        self._repeated_at = float("-inf")
        self._begin_as_writer()

    def _begin_as_writer(self) -> None:
        self._writer = ""
        self._seq = 0
        self._under_way: Flush | None = None
        self.has_more = False

    # What metrics read

    def outcomes(self) -> dict[str, int]:
        """Return how many requests had each outcome since the guard's start in this process.

        ``"allowed"``, and the reasons of refusals, also of requests without a known key. A request
        that is let in and refused later counts as allowed until it is refused. No number falls.
        """
        with self._lock:
            self._collect()
            # A refusal takes one away. What was shown before stays until as many are let in.
            self._shown = max(self._shown, self._outcomes[ALLOWED])
            outcomes = dict(self._outcomes)  # in one step, as refusals add names without the lock
            return {**{str(name): n for name, n in outcomes.items()}, ALLOWED: self._shown}

    def tell_apart(self, organizations: Iterable[str]) -> None:
        """Count the outcomes of some organizations separately as well."""
        with self._lock:
            self._collect()
            self._apart |= frozenset(organizations)

    def outcomes_of_organizations(self) -> dict[tuple[str, str], int]:
        """Return :meth:`outcomes` by organization, for those that are counted separately.

        A number falls if a request that was let in is refused later.
        """
        with self._lock:
            self._collect()
            return dict(self._outcomes_of)

    def _count_outcome(self, organization: str | None, outcome: str, n: int) -> None:
        self._outcomes[outcome] += n
        if organization in self._apart:
            self._outcomes_of[organization, outcome] += n

    def lookups(self) -> dict[str, int]:
        """Return how many look-ups of keys had each result since the guard's start here.

        ``"hit"``: the memory knew the token. ``"miss"``: the store was asked. ``"shared"``: the
        answer to another request was shared.
        """
        with self._lock:
            self._collect()
            hits = self._hits + self._tokens.recalled
            return {"hit": hits, "miss": self.led, "shared": self.shared}

    def pending(self) -> int:
        """Return how many cells wait to be written to the store."""
        under_way = self._under_way
        return self._cells.size + (0 if under_way is None else len(under_way.cells))

    @property
    def lost(self) -> int:
        """Requests that no store will get, or that the store may not have."""
        return self._cells.lost

    # What requests count

    def count(self, decision: Decision) -> None:
        """Count a request that ``VerifiedTokens.recall`` did not decide."""
        if isinstance(decision, Deny) and decision.organization is None:
            # A flood of these must cost little. As on the warm path, nothing is called here, so
            # that no other thread can come between.
            self._outcomes[decision.reason] += 1
            return
        with self._lock:
            if self.is_over or len(self._tokens.dropped) > MOST_DROPPED:
                self._collect()
            if isinstance(decision, Allow):
                self._add(_who(decision.principal), (ALLOWED, ""), 1, 1)
            else:
                who = (decision.organization or "", decision.key_id or "", decision.family or "")
                self._add(who, (decision.reason.value, ""), 1, 0)

    def refuse(self, deny: Deny, allow: Allow | None, tag: str = "", units: int = 1) -> None:
        """Count a refusal that came later than the decision to let the request in.

        Args:
            deny: The refusal.
            allow: The decision that let the request in; None if no key was required.
            tag: The tag that the request has.
            units: The units for which it counts. A refused request counts for none.
        """
        reason = deny.reason.value
        with self._lock:
            owner = None if allow is None else allow.principal.organization
            self._count_outcome(owner, reason, 1)
            if allow is not None:
                self._count_outcome(owner, ALLOWED, -1)
                self._move(_who(allow.principal), (ALLOWED, tag), (reason, tag))
                self._weigh(_who(allow.principal), tag, 1 - units)

    def tag(self, principal: Principal, tag: str) -> None:
        """Give a request that was let in a tag."""
        with self._lock:
            self._move(_who(principal), (ALLOWED, ""), (ALLOWED, tag))

    def weigh(self, principal: Principal, tag: str, more: int) -> None:
        """Count more units for a request that was let in, or fewer. It began with 1.

        Args:
            principal: Who made the request.
            tag: Its tag.
            more: The difference.
        """
        with self._lock:
            self._weigh(_who(principal), tag, more)

    def see(self, principal: Principal, sighting: Sighting, what: str) -> None:
        """Note a network or a scope of a key, once in :data:`~.sightings.SEEN_EVERY`.

        Args:
            principal: The principal of the key.
            sighting: The kind of the sighting.
            what: The network or scope, up to 64 ASCII characters.
        """
        with self._lock:
            self._see(principal, sighting, what)

    def _see(self, principal: Principal, sighting: Sighting, what: str) -> None:
        seen_in = int(self._time() // SEEN_EVERY.total_seconds())
        if self._seen_in != seen_in:
            self._seen, self._seen_size, self._seen_in = {}, 0, seen_in
        organization, key_id, family = _who(principal)
        owner = sighting.owner(organization)
        seen = self._seen.setdefault((owner, key_id), set())
        has_room = len(seen) < MOST_SEEN_OF_KEY and self._seen_size < MOST_SEEN
        if self.keeps and has_room and what not in seen:
            seen.add(what)
            self._seen_size += 1
            self._cells.keep((owner, key_id, family), (SEEN, what), 1, 0, self._start)

    def _move(self, who: Who, source: What, target: What) -> None:
        if self.keeps:
            self._cells.move(who, source, target)

    def _weigh(self, who: Who, tag: str, more: int) -> None:
        if self.keeps:
            self._cells.weigh(who, tag, more)

    def _add(self, who: Who, what: What, n: int, units: int) -> None:
        self._count_outcome(who[0], what[0], n)
        if self.keeps:
            self._cells.keep(who, what, n, units, self._start)

    # What waits to be written

    def collect(self) -> None:
        """Collect the counts of the warm path, into the bucket in which they began."""
        with self._lock:
            self._collect()

    @property
    def is_over(self) -> bool:
        """Whether the present bucket is over, so that it is time to collect."""
        return not self._is_present(self._time())

    def _is_present(self, time: float) -> bool:
        # Clocks are set back a little now and then. By more, it was wrong before.
        return self._start - self._bucket <= time < self._start + self._bucket

    def _collect(self) -> None:
        for entry in self._tokens.take_counted():
            principal = entry.allow.principal
            if entry.allow.needed:
                for scope in entry.take_needed():
                    self._see(principal, Sighting.SCOPE, scope[:LONGEST_SEEN])
            if n := entry.take_allowed():
                self._hits += n
                self._add(_who(principal), (ALLOWED, ""), n, n)
        self._cells.settle(self._start)
        self._collected_at = self._time()
        if not self._is_present(self._collected_at):
            self._start = self._start_of(self._collected_at)

    def _start_of(self, time: float) -> float:
        return time // self._bucket * self._bucket

    # Flushes

    def next_flush(self) -> Flush | None:
        """Return the next flush for the store; None if there is nothing to write.

        A flush is returned again until :meth:`told` is called with it.
        """
        with self._lock:
            if self._under_way is not None:
                self._repeated_at = self._time()
                self.has_more = True
            else:
                self._collect()
                is_silent = abs(self._collected_at - self._told_at) < SIGN_OF_LIFE
                if not self._cells and (is_silent or not self._seq):
                    return None
                # The first flush only makes the writer known: losing it loses no count.
                cells = self._cells.take() if self._seq else ()
                self._writer = self._writer or secrets.token_hex(8)
                self._seq += 1
                self.has_more = bool(self._cells)
                until = self._until if self.has_more else self._collected_at
                self._under_way = Flush(self._writer, self._seq, instant(until), cells)
            return self._under_way

    def told(self, flush: Flush) -> None:
        """Note that the store has a flush."""
        with self._lock:
            if self._under_way is flush:
                self._under_way = None
                self._told_at = self._time()
                self._until = flush.until.timestamp()

    def lose(self, flush: Flush, organizations: Collection[str]) -> None:
        """Note that the store has a flush, but for the cells of some organizations."""
        self._cells.lost += sum(
            cell.n for cell in flush.cells if cell.organization in organizations
        )
        self.told(flush)

    @property
    def is_waiting(self) -> bool:
        """Whether a flush is in progress that the store has not confirmed."""
        return self._under_way is not None

    def retire(self) -> str | None:
        """Go on as another writer; return the id of the old one, which may leave the store.

        None if the store does not know the old writer, or if a flush of it may still arrive.
        """
        with self._lock:
            is_sure = self._time() - self._repeated_at > _LONGEST_WAY
            if not self._seq or self._under_way is not None or not is_sure:
                return None
            writer = self._writer
            self._begin_as_writer()
            return writer

    @property
    def unheard(self) -> str | None:
        """The id of this writer, if others may have given it up for its silence; otherwise None."""
        is_unheard = self._seq and self._time() - self._told_at >= GIVEN_UP
        return self._writer if is_unheard else None

    def give_up(self, writer: str) -> None:
        """Go on as another writer, because the store no longer knows this one.

        It is not known whether the store has the flush in progress, so it counts as lost.
        """
        with self._lock:
            if writer == self._writer:
                if self._under_way is not None:
                    self._cells.lost += sum(cell.n for cell in self._under_way.cells)
                self._begin_as_writer()


def _who(principal: Principal) -> Who:
    return principal.organization, principal.key_id, principal.family
