"""Finds hints: it reads from the stores what each rule needs, and applies the rules.

If a rule would look at more than :data:`MOST` keys one by one, it looks at those with the most
requests, or at the first by id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from hashlib import sha256
from itertools import pairwise

from keyguard.core.access.decisions import Reason
from keyguard.core.keys.audit import Actor
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.temporary import Temporary
from keyguard.core.keys.time_zones import find_time_zone
from keyguard.core.management.authority import authority_of
from keyguard.core.management.common import Operations, all_keys, find_organization, page_size
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.usage import hints
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.periods import DAYS_KEPT, start_of_day
from keyguard.core.usage.sightings import LONGEST_SEEN, SEEN_EVERY, SIGHTINGS_KEPT, Sighting
from keyguard.core.usage.values import ALLOWED, QUARTER, GroupBy, Period, Question, Total
from keyguard.core.values import Page, in_utc
from keyguard.exceptions import CorruptDataError, InvalidValueError, NotFoundError, shown

MOST = 100
"""How many keys one rule looks at one by one."""

_DAY = timedelta(days=1)
_WEEK = timedelta(weeks=1)
_DISMISSED_FOR = timedelta(days=30)
_TOLD_FOR = timedelta(days=90)
_PAGE = 1000
_ENDS = (Reason.KEY_REVOKED, Reason.KEY_EXPIRED, Reason.KEY_ROTATED)


class FoundHints(Operations):
    """How hints are found, told and dismissed."""

    async def hints(
        self, *, organization: str, after: str | None = None, limit: int = 100
    ) -> Page[Hint]:
        """Return one page of what a person should look at, the most urgent first.

        See :meth:`~keyguard.guard.usage.Usage.hints`.
        """
        ports = self._ports
        size = page_size(limit)
        owner = await find_organization(ports, organization)
        found = await _shown(ports, owner, ports.now())
        start = 0
        if after is not None:
            start = next((n for n, hint in enumerate(found, 1) if hint.id == after), len(found))
        page = tuple(found[start : start + size])
        return Page(page, page[-1].id if start + size < len(found) else None)

    async def new_hints(self, *, organization: str) -> tuple[Hint, ...]:
        """Return the hints that this method has not returned before, and report them to the hooks.

        See :meth:`~keyguard.guard.usage.Usage.new_hints`.
        """
        ports = self._ports
        owner = await find_organization(ports, organization)
        now = ports.now()
        new: list[Hint] = []
        for hint in await _shown(ports, owner, now):
            told = Temporary(
                "hint", sha256(f"{owner.id}:{hint.id}".encode()).hexdigest(), "", now + _TOLD_FOR
            )
            if await ports.store.put_temporary(told, now):
                ports.tell_hint(hint)
                new.append(hint)
        return tuple(new)

    async def dismiss(
        self, *, organization: str, hint: str, until: datetime | None = None, actor: Actor = None
    ) -> datetime:
        """Keep a hint from being shown for a time.

        See :meth:`~keyguard.guard.usage.Usage.dismiss`.
        """
        ports = self._ports
        usage, now = ports.usage, ports.now()
        end = now + _DISMISSED_FOR if until is None else in_utc("until", until)
        if not isinstance(hint, str):
            raise InvalidValueError(f"hint takes the id of a hint, not {shown(hint)}")
        if not now < end <= now + DAYS_KEPT:
            raise InvalidValueError(
                f"until must be a time in the future, at most {DAYS_KEPT.days} days from now"
            )
        owner = await find_organization(ports, organization, await authority_of(ports, actor))
        # Only present hints: otherwise anybody could fill the store.
        if hint not in [found.id for found in await _find(ports, owner, now)]:
            raise NotFoundError(f"organization {owner.slug!r} has no hint {shown(hint)}")
        await usage.dismiss(owner.id, hint, end)
        return end


async def _shown(ports: ManagementPorts, owner: Organization, now: datetime) -> list[Hint]:
    """Return the hints that nobody dismissed."""
    dismissed = await ports.usage.dismissed(owner.id, now)
    return [hint for hint in await _find(ports, owner, now) if hint.id not in dismissed]


async def _find(ports: ManagementPorts, owner: Organization, now: datetime) -> list[Hint]:
    seeker = _Seeker(ports, owner, now)
    found = [hint async for hint in seeker.ended_keys()]
    if owner.disabled_at is None:
        page = await all_keys(ports, KeyFilter(organization=owner.id, alive_at=now))
        keys = {key.id: key for key in page}
        found += seeker.of_records(keys)
        of_usage = (seeker.refused, seeker.woken, seeker.surges, seeker.networks, seeker.scopes)
        for rule in of_usage:
            found += [hint async for hint in rule(keys)]
    order = list(hints.HintKind).index
    return sorted(found, key=lambda hint: (order(hint.kind), hint.id))


class _Seeker:
    """Applies each rule to an organization at a time."""

    def __init__(self, ports: ManagementPorts, owner: Organization, now: datetime) -> None:
        self._ports = ports
        self._usage = ports.usage
        self._owner = owner
        self._now = now
        self._zone = find_time_zone(owner.time_zone)
        self._end = now - (now - datetime.min.replace(tzinfo=UTC)) % QUARTER

    async def ended_keys(self) -> AsyncIterator[Hint]:
        days = self._days(hints.PRESENTED_DAYS)
        counted: dict[str, list[int]] = defaultdict(lambda: [0] * len(days))
        for reason in _ENDS:
            for total in await self._totals(days, GroupBy.KEY, outcome=reason.value):
                counted[total.group][total.period] += total.n
        counted.pop("", None)
        for key_id in sorted(counted, key=lambda name: -sum(counted[name]))[:MOST]:
            try:
                record = await self._ports.store.find_key(key_id)
            except CorruptDataError:
                continue
            if record is not None:
                by_day = list(zip(days, counted[key_id], strict=True))
                if hint := hints.ended_key_presented(record.key, by_day, self._now):
                    yield hint

    def of_records(self, keys: dict[str, Key]) -> Iterator[Hint]:
        """Apply the rules that need nothing but keys."""
        for key in keys.values():
            found = [hints.ends_soon(key, self._now), hints.unused(key, self._now)]
            if key.successor in keys:
                found.append(hints.predecessor_used(key, keys[key.successor], self._now))
            yield from filter(None, found)

    async def refused(self, keys: dict[str, Key]) -> AsyncIterator[Hint]:
        period = Period(self._end - _DAY, self._end + QUARTER)
        everything = _by_group(await self._totals((period,), GroupBy.KEY))
        allowed = _by_group(await self._totals((period,), GroupBy.KEY, outcome=ALLOWED))
        suspects = [
            key_id
            for key_id, n in everything.items()
            if key_id in keys and n >= hints.REFUSED_LEAST and 2 * allowed.get(key_id, 0) < n
        ]
        for key_id in sorted(suspects, key=lambda name: -everything[name])[:MOST]:
            outcomes = _by_group(await self._totals((period,), GroupBy.OUTCOME, key_id=key_id))
            let_in = outcomes.pop(ALLOWED, 0)
            if hint := hints.mostly_refused(keys[key_id], outcomes, let_in, period, self._now):
                yield hint

    async def woken(self, keys: dict[str, Key]) -> AsyncIterator[Hint]:
        days = self._days(hints.DORMANT_DAYS + hints.WOKEN_DAYS)
        if not await self._was_counted_before(days[0].start):
            return
        used = await self._totals(days[hints.DORMANT_DAYS :], GroupBy.KEY, outcome=ALLOWED)
        candidates = {total.group for total in used if total.n} & keys.keys()
        # On these days a key was silent, whenever in the last week it woke.
        for day in reversed(days[hints.WOKEN_DAYS - 1 : hints.DORMANT_DAYS]):
            if len(candidates) <= MOST:
                break
            busy = await self._totals((day,), GroupBy.KEY, outcome=ALLOWED)
            candidates -= {total.group for total in busy if total.n}
        for key_id in sorted(candidates)[:MOST]:
            counted = _by_period(await self._totals(days, key_id=key_id, outcome=ALLOWED), days)
            if hint := hints.dormant_woke(keys[key_id], counted):
                yield hint

    async def surges(self, keys: dict[str, Key]) -> AsyncIterator[Hint]:
        earliest = self._end - _DAY - hints.SURGE_WEEKS * _WEEK
        if not await self._was_counted_before(earliest):
            return
        newest = {key.family: key for key in sorted(keys.values(), key=lambda key: key.created_at)}
        day = Period(self._end - _DAY, self._end)
        question = Question(self._owner.id, (day,), GroupBy.FAMILY, limit=MOST)
        for total in await self._usage.largest(question):
            if total.n < hints.SURGE_LEAST or total.group not in newest:
                continue
            of_family = KeyFilter(organization=self._owner.id, family=total.group)
            family = await self._ports.store.list_keys(of_family, after=None, limit=_PAGE)
            if all(key.created_at >= earliest for key in family):
                continue
            lately = [
                key.id for key in family if (key.revoked_at or key.ends_at or self._now) > earliest
            ]
            if hint := hints.surge(newest[total.group], await self._quarters(lately, day)):
                yield hint

    async def networks(self, keys: dict[str, Key]) -> AsyncIterator[Hint]:
        days = self._days(hints.NETWORK_DAYS)
        before = Period(days[0].start - SIGHTINGS_KEPT, days[0].start)
        owner = Sighting.NETWORK.owner(self._owner.id)
        lately = Period(days[0].start, days[-1].end)
        noted = _by_group(await self._totals((lately,), GroupBy.KEY, organization=owner))
        for key_id in sorted(noted.keys() & keys.keys())[:MOST]:
            seen: list[set[str]] = [set() for _ in range(len(days) + 1)]
            periods = (before, *days)
            for total in await self._totals(
                periods, GroupBy.TAG, key_id=key_id, organization=owner
            ):
                seen[total.period].add(total.group)
            by_day = list(zip(days, seen[1:], strict=True))
            for hint in hints.new_networks(keys[key_id], seen[0], by_day):
                yield hint

    async def scopes(self, keys: dict[str, Key]) -> AsyncIterator[Hint]:
        since = self._end - timedelta(days=hints.UNUSED_DAYS)
        owner = Sighting.SCOPE.owner(self._owner.id)
        # A process notes a scope once in 30 days, so one of these days may stand for a later day.
        noted_by = since - SEEN_EVERY
        periods = (
            Period(since - 2 * SEEN_EVERY, noted_by),
            Period(noted_by, since),
            Period(since, self._end + QUARTER),
        )
        noted = _by_group(await self._totals(periods[2:], GroupBy.KEY, organization=owner))
        for key_id in sorted(noted.keys() & keys.keys())[:MOST]:
            key = keys[key_id]
            found = await self._totals(periods, GroupBy.TAG, key_id=key_id, organization=owner)
            if all(total.period == 2 for total in found):
                continue  # it is not known what the key needed at first
            needed = {total.group for total in found if total.period > 0}
            grants = {
                scope: self._ports.policy.grant(frozenset({scope}))
                for scope in key.scopes
                if len(scope) <= LONGEST_SEEN
            }
            if hint := hints.scopes_unneeded(key, grants, needed, since):
                yield hint

    async def _quarters(
        self, key_ids: Sequence[str], day: Period
    ) -> list[tuple[Period, int, Sequence[int]]]:
        """Return the busy quarters of a day, each with what it had in the weeks before."""
        quarters = [_quarter(day.start + number * QUARTER) for number in range(_DAY // QUARTER)]
        counted = await self._sums(quarters, key_ids)
        weeks = range(1, hints.SURGE_WEEKS + 1)
        before = {
            quarter: [_quarter(_weeks_before(quarter.start, n, self._zone)) for n in weeks]
            for quarter, n in counted.items()
            if n >= hints.SURGE_LEAST
        }
        usual = await self._sums(
            sorted({quarter for of in before.values() for quarter in of}), key_ids
        )
        return [
            (quarter, counted[quarter], [usual[other] for other in others])
            for quarter, others in before.items()
        ]

    async def _sums(self, periods: Sequence[Period], key_ids: Sequence[str]) -> dict[Period, int]:
        """Return the requests of several keys together, by period."""
        sums = dict.fromkeys(periods, 0)
        for key_id in key_ids:
            for total in await self._totals(periods, key_id=key_id):
                sums[periods[total.period]] += total.n
        return sums

    def _days(self, count: int) -> list[Period]:
        """Return the last civil days in the organization's zone, the present one last."""
        today = self._now.astimezone(self._zone).date()
        starts = [start_of_day(today - n * _DAY, self._zone) for n in range(count - 1, -2, -1)]
        return [Period(*bounds) for bounds in pairwise(starts)]

    async def _was_counted_before(self, at: datetime) -> bool:
        """Return whether usage was counted before a time; otherwise its absence means nothing."""
        question = Question(self._owner.id, (Period(at - DAYS_KEPT, at),), limit=1)
        return bool(await self._usage.totals(question))

    async def _totals(
        self,
        periods: Sequence[Period],
        group_by: GroupBy = GroupBy.NOTHING,
        *,
        key_id: str | None = None,
        outcome: str | None = None,
        organization: str | None = None,
    ) -> list[Total]:
        """Return all totals of a question, page by page."""
        found: list[Total] = []
        after: tuple[int, str] | None = None
        while periods:
            page = await self._usage.totals(
                Question(
                    organization or self._owner.id,
                    tuple(periods),
                    group_by,
                    key_id=key_id,
                    outcome=outcome,
                    after=after,
                    limit=_PAGE,
                )
            )
            found += page
            if len(page) < _PAGE:
                break
            after = page[-1].period, page[-1].group
        return found


def _by_group(totals: Iterable[Total]) -> dict[str, int]:
    return {total.group: total.n for total in totals if total.n}


def _by_period(totals: Iterable[Total], periods: Sequence[Period]) -> list[tuple[Period, int]]:
    counts = {total.period: total.n for total in totals}
    return [(period, counts.get(number, 0)) for number, period in enumerate(periods)]


def _quarter(start: datetime) -> Period:
    return Period(start, start + QUARTER)


def _weeks_before(at: datetime, weeks: int, zone: tzinfo) -> datetime:
    """Return the time so many weeks earlier at which the clocks of a zone show the same."""
    return (at.astimezone(zone) - weeks * _WEEK).astimezone(UTC)
