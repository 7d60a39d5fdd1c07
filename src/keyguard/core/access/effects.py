"""What a flow may ask of the outside.

A flow is a generator that yields effects and is sent their answers::

    record = yield from LookUp(key_id)  # KeyRecord | None, as mypy and pyright infer it

An effect says *what* is asked, and :meth:`Effect.perform` names the one operation of the outside
that answers it, at once or with an awaitable. :mod:`keyguard.runtime.drivers` carries the answers
back. What only management asks is in :mod:`keyguard.core.management.effects`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from keyguard.core.access.decisions import Allow
from keyguard.core.keys.records import KeyRecord
from keyguard.core.limits.charges import Charge, Outcome
from keyguard.core.tokens.secret import Secret

__all__ = [
    "AdjustLimits",
    "Block",
    "BlockedFor",
    "Discard",
    "Effect",
    "Flow",
    "HitLimits",
    "LookUp",
    "NoteUse",
    "OfferRehash",
    "ReadClock",
    "Recall",
    "Remember",
    "VerifyToken",
    "WasVerified",
]

Answer = TypeVar("Answer")
Result = TypeVar("Result")


class Effect(Generic[Answer]):
    """One question to the outside, with the type of its answer.

    Unlike values it is not frozen. It lives from its yield to its answer, and freezing would double
    what it takes to make one, which a look-up does several times, and to import them.
    """

    __slots__ = ()

    changes: ClassVar[bool] = False
    """Whether it changes what is stored; then :meth:`subjects` says of what."""

    asks_store: ClassVar[bool] = True
    """Whether it has the key store's deadline; counters and slow hashes have their own."""

    def __iter__(self) -> Generator[Effect[Any], Any, Answer]:
        return (yield self)  # type: ignore[no-any-return]  # the driver sends what perform gave

    def perform(self, outside: Any) -> Any:
        """Ask: return the answer or an awaitable of it."""
        raise NotImplementedError

    def subjects(self) -> Sequence[str]:
        """Return the ids of the keys and organizations that it changes."""
        raise NotImplementedError


Flow: TypeAlias = Generator[Effect[Any], Any, Result]


@dataclass(eq=False)
class ReadClock(Effect[datetime]):
    """The time now, in UTC."""

    def perform(self, outside: Any) -> Any:
        return outside.now()


@dataclass(eq=False)
class VerifyToken(Effect[bool]):
    """Whether a token is the one behind a stored digest.

    ``digest`` is None for an unknown key: the answer is False, after the work of a comparison.
    """

    asks_store = False

    token: Secret
    digest: str | None = field(repr=False)

    def perform(self, outside: Any) -> Any:
        return outside.verify(self.token, self.digest)


@dataclass(eq=False)
class Recall(Effect[Allow | None]):
    """What a token was verified as lately, or None where it must be looked up."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.recall(self.token)


@dataclass(eq=False)
class Remember(Effect[bool]):
    """Keep a verified token with what it may do.

    The answer is False where the key changed since this flow looked it up: look again.
    """

    token: Secret
    record: KeyRecord
    allow: Allow

    def perform(self, outside: Any) -> Any:
        return outside.remember(self.token, self.record, self.allow)


@dataclass(eq=False)
class Discard(Effect[None]):
    """Remember a token no longer, which was looked up and is dead."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.discard(self.token)


@dataclass(eq=False)
class WasVerified(Effect[bool]):
    """Whether a token was verified here before, however long ago: then it is no guess."""

    token: Secret

    def perform(self, outside: Any) -> Any:
        return outside.was_verified(self.token)


@dataclass(eq=False)
class BlockedFor(Effect[float | None]):
    """For how many seconds a client is refused for its failures, or None."""

    client: str

    def perform(self, outside: Any) -> Any:
        return outside.blocked_for(self.client)


@dataclass(eq=False)
class Block(Effect[None]):
    """Refuse a client for so many seconds, without asking anybody again."""

    client: str
    seconds: float

    def perform(self, outside: Any) -> Any:
        return outside.block(self.client, self.seconds)


@dataclass(eq=False)
class HitLimits(Effect[Outcome | None]):
    """Count charges, all or none; None where they can't be counted and that must not pass."""

    asks_store = False
    charges: Sequence[Charge]

    def perform(self, outside: Any) -> Any:
        return outside.hit(self.charges)


@dataclass(eq=False)
class AdjustLimits(Effect[Outcome | None]):
    """Count more or give back; the answer is how the buckets stand after, None as above.

    It is given back only until ``ends_at``, and where ``counter`` counted it, as was said when it
    was: see :class:`~keyguard.core.limits.charges.Outcome`.
    """

    asks_store = False
    charges: Sequence[Charge]
    units: Sequence[int]
    ends_at: Sequence[float]
    counter: int | None

    def perform(self, outside: Any) -> Any:
        return outside.adjust(self.charges, self.units, self.ends_at, self.counter)


@dataclass(eq=False)
class LookUp(Effect[KeyRecord | None]):
    """The record of a key for a request; those that ask at the same time share one answer.

    With ``fresh`` it is looked up from now on, and not shared.
    """

    key_id: str
    fresh: bool = False

    def perform(self, outside: Any) -> Any:
        return outside.look_up(self.key_id, fresh=self.fresh)


@dataclass(eq=False)
class NoteUse(Effect[None]):
    """Remember that a key was let in, for its ``last_used_at``."""

    key_id: str
    address: str | None

    def perform(self, outside: Any) -> Any:
        return outside.note_use(self.key_id, self.address)


@dataclass(eq=False)
class OfferRehash(Effect[None]):
    """Have a genuine token stored under the current scheme, in the background, if it is not."""

    key_id: str
    token: Secret
    digest: str = field(repr=False)

    def perform(self, outside: Any) -> Any:
        return outside.rehash(self.key_id, self.token, self.digest)
