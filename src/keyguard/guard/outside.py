"""The outside of a flow: what its effects are performed on.

The one place where it is decided who answers an effect: the store, the cache, the hasher, the
clock or the source of randomness; and that a change is forgotten by the cache whatever came of it.
"""

from __future__ import annotations

import functools
import inspect
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from keyguard.core.access.decisions import Allow
from keyguard.core.access.effects import Effect
from keyguard.core.access.policy import Policy
from keyguard.core.identity.addresses import parse_address
from keyguard.core.keys.records import KeyRecord, Use
from keyguard.core.limits.charges import Charge
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import StoreUnavailableError
from keyguard.freshness.background import AsyncBackgroundWork, BackgroundWork
from keyguard.freshness.blocked_clients import BlockedClients
from keyguard.freshness.lookups import Lookups
from keyguard.freshness.verified_tokens import VerifiedTokens
from keyguard.runtime.deadlines import awithin, within
from keyguard.runtime.process import Clock
from keyguard.settings.hashing import TokenHasher, scheme_of
from keyguard.stores.base import AsyncStore, Store
from keyguard.stores.failover import AsyncCircuitBreaker, CircuitBreaker

__all__ = ["Outside", "Parts"]


class Parts(NamedTuple):
    """The parts of one guard that every flow needs and that wait for nobody."""

    policy: Policy
    tokens: VerifiedTokens
    lookups: Lookups
    hasher: TokenHasher
    blocked: BlockedClients
    clock: Clock
    records_addresses: bool = False

    def now(self) -> datetime:
        """Return the time now, in UTC."""
        return datetime.fromtimestamp(self.clock.time(), UTC)


class Outside:
    """The outside of one flow. In the async flavour the store and slow hashes are awaited.

    Args:
        parts: The guard's parts.
        store: Where keys live.
        breaker: The way to where counters live.
        background: What is done beside requests.
        slowly: Runs a slow hash in its turn: at once, or as an awaitable.
        timeout: Seconds that one effect may take.
    """

    __slots__ = ("_background", "_breaker", "_mark", "_parts", "_slowly", "_timeout", "store")

    def __init__(
        self,
        parts: Parts,
        store: Store | AsyncStore,
        breaker: CircuitBreaker | AsyncCircuitBreaker,
        background: BackgroundWork | AsyncBackgroundWork,
        slowly: Callable[[Callable[[], Any]], Any],
        timeout: float,
    ) -> None:
        self.store = store
        self._breaker = breaker
        self._background = background
        self._parts = parts
        self._slowly = slowly
        self._timeout = timeout
        self._mark = parts.tokens.begin()

    def perform(self, effect: Effect[Any]) -> Any:
        """Perform one effect within its deadline."""
        if not effect.asks_store:
            return effect.perform(self)
        try:
            with within(self._timeout):
                return effect.perform(self)
        finally:
            self._settle(effect)

    async def aperform(self, effect: Effect[Any]) -> Any:
        """Perform one effect within its deadline, awaiting what has to be awaited."""
        try:
            answer = effect.perform(self)
            if inspect.isawaitable(answer):
                if not effect.asks_store:
                    return await answer
                async with awithin(self._timeout):
                    return await answer
            return answer
        except TimeoutError as late:
            advice = (
                "whether the change was made is not known: look before trying again"
                if effect.changes
                else "try again later"
            )
            raise StoreUnavailableError(
                f"the key store did not answer within {self._timeout:g} seconds; {advice}"
            ) from late
        finally:
            self._settle(effect)

    def _settle(self, effect: Effect[Any]) -> None:
        if effect.changes:  # also when it failed: it may have happened all the same
            self._parts.tokens.forget(effect.subjects())

    @property
    def policy(self) -> Policy:
        """What the service has settled."""
        return self._parts.policy

    def now(self) -> datetime:
        """Return the time now, in UTC."""
        return self._parts.now()

    def entropy(self, size: int) -> bytes:
        """Return so many random bytes."""
        return secrets.token_bytes(size)

    def look_up(self, key_id: str, *, fresh: bool) -> Any:
        """Look a key up for a request, noting from when on its changes count."""
        self._background.start()
        if fresh:
            self._mark = self._parts.tokens.begin()
            return self.store.find_key(key_id)
        if isinstance(self._background, AsyncBackgroundWork):
            return self._alook_up(key_id)
        find_key: Any = self.store.find_key
        record, self._mark = self._parts.lookups.find(key_id, find_key)
        return record

    async def _alook_up(self, key_id: str) -> KeyRecord | None:
        find_key: Any = self.store.find_key
        record, self._mark = await self._parts.lookups.afind(key_id, find_key)
        return record

    def rehash(self, key_id: str, token: Secret, digest: str) -> None:
        """Have a genuine token stored anew where its stored form is outdated."""
        if self._parts.hasher.is_outdated(digest):
            self._background.rehash(key_id, digest, token)

    def note_use(self, key_id: str, address: str | None) -> None:
        """Note that a key was let in."""
        seen = None
        if address is not None and self._parts.records_addresses:
            # What is none could be more than a store takes, and hold up all that is told with it.
            seen = parse_address(address)
        self._parts.tokens.note_use(Use(key_id, self.now(), None if seen is None else str(seen)))

    def hash(self, token: Secret) -> Any:
        """Return the form in which a token is stored."""
        job = functools.partial(self._parts.hasher.hash, token)
        return self._slowly(job) if self._parts.hasher.hashes_slowly else job()

    def hash_weak(self, token: Secret, *, pinned: bool) -> Any:
        """Return the form in which a token is stored that can be guessed."""
        return self._slowly(functools.partial(self._parts.hasher.hash_slowly, token, pinned=pinned))

    def describe_digest(self, digest: str) -> str:
        """Return what a stored form hangs on."""
        return scheme_of(digest)

    def verify(self, token: Secret, digest: str | None) -> Any:
        """Tell whether a token is the one behind a stored form."""
        if digest is not None and self._parts.tokens.matched(token, digest):
            return True
        job = functools.partial(self._parts.hasher.verify, token, digest)
        return self._slowly(job) if self._parts.hasher.is_slow(digest) else job()

    def recall(self, token: Secret) -> Allow | None:
        """Return what a token was verified as lately."""
        return self._parts.tokens.recall_any(token)

    def was_verified(self, token: Secret) -> bool:
        """Tell whether a token was verified in this process before."""
        return self._parts.tokens.knows(token)

    def blocked_for(self, client: str) -> float | None:
        """Return the seconds for which a client is refused for its failures, or None."""
        return self._parts.blocked.blocked_for(client)

    def block(self, client: str, seconds: float) -> None:
        """Refuse a client for so many seconds."""
        self._parts.blocked.block(client, seconds)

    def hit(self, charges: Sequence[Charge]) -> Any:
        """Count charges, all or none."""
        return self._breaker.hit(charges)

    def adjust(
        self,
        charges: Sequence[Charge],
        units: Sequence[int],
        ends_at: Sequence[float],
        counter: int | None,
    ) -> Any:
        """Count more or give back."""
        return self._breaker.adjust(charges, units, ends_at, counter)

    def read_limits(self, charges: Sequence[Charge]) -> Any:
        """Look at buckets."""
        nothing = [0] * len(charges)
        return self._breaker.limiter.adjust(charges, nothing, nothing)

    def discard(self, token: Secret) -> None:
        """Remember a token no longer."""
        self._parts.tokens.discard(token)

    def remember(self, token: Secret, record: KeyRecord, allow: Allow) -> bool:
        """Keep a verified token, unless its key changed since it was looked up."""
        return self._parts.tokens.remember(token, record, allow, self._mark)
