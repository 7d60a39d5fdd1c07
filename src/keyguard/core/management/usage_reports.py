"""Reports of usage."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo

from keyguard.core.identity.principal import Principal
from keyguard.core.keys.records import Organization
from keyguard.core.keys.time_zones import find_time_zone
from keyguard.core.limits.charges import statuses
from keyguard.core.management.common import (
    LONGEST_ID,
    Operations,
    find_organization,
    find_record,
    page_size,
    unknown,
)
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.usage.periods import (
    FINE,
    QUARTERS_KEPT,
    Step,
    civil_day,
    periods_between,
    start_of_day,
)
from keyguard.core.usage.results import OwnUsage, UsageItem, UsageReport
from keyguard.core.usage.values import GroupBy, Period, Question, Total, Writer
from keyguard.core.values import in_utc
from keyguard.exceptions import CorruptDataError, InvalidValueError, shown

_SPAN = {
    Step.QUARTER: timedelta(hours=6),
    Step.HOUR: timedelta(hours=24),
    Step.DAY: timedelta(days=6),
    Step.WEEK: timedelta(weeks=7),
    Step.MONTH: timedelta(days=365),
}
"""How far before the end a report begins if nobody says so. Whole periods are added to that."""

_SPAN_ELSEWHERE = {**_SPAN, Step.WEEK: timedelta(weeks=3), Step.MONTH: timedelta(days=1)}
"""The same in another zone than the organization's, in which only quarters can be told."""

_LATE = timedelta(seconds=90)
_GIVEN_UP = timedelta(hours=1)
_TOLD_WITHIN = timedelta(seconds=10)
_MOST_LATE = 20
_CURSOR = re.compile(r"[0-9]{1,11}:[!-~]{0,64}\Z")


@dataclass(frozen=True, slots=True)
class _Asked:
    """The question that a report answers.

    Args:
        owner: The organization.
        key_id: The only key, or None.
        periods: The periods.
        zone: The time zone of the periods.
    """

    owner: Organization
    key_id: str | None
    periods: tuple[Period, ...]
    zone: tzinfo

    def item(self, total: Total) -> UsageItem:
        start, end = (time.astimezone(self.zone) for time in self.periods[total.period])
        return UsageItem(start, end, total.group, total.n, total.units)


class Reports(Operations):
    """How usage is reported."""

    async def report(
        self,
        *,
        organization: str,
        key: str | None = None,
        family: str | None = None,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        step: str = "day",
        zone: str | None = None,
        group_by: str | None = None,
        after: str | None = None,
        limit: int = 1000,
    ) -> UsageReport:
        """Return one page of a report of who used what.

        See :meth:`~keyguard.guard.usage.Usage.report`.
        """
        ports = self._ports
        size = page_size(limit)
        grouped = _group_by(group_by)
        asked = await _asked(ports, organization, key, start, end, Step.of(step), zone)
        question = Question(
            asked.owner.id,
            asked.periods,
            grouped,
            asked.key_id,
            _family(family),
            after=_read_cursor(after, asked.periods),
            limit=size + 1,
        )
        totals = await ports.usage.totals(question)
        following = _cursor(asked.periods, totals[size - 1]) if len(totals) > size else None
        return await _report(ports, asked, totals[:size], following)

    async def top(
        self,
        *,
        organization: str,
        start: datetime | date | None = None,
        end: datetime | date | None = None,
        zone: str | None = None,
        by: str = "key",
        outcome: str | None = None,
        limit: int = 10,
    ) -> UsageReport:
        """Return the keys, families, outcomes or tags with the most requests.

        See :meth:`~keyguard.guard.usage.Usage.top`.
        """
        ports = self._ports
        size = page_size(limit)
        grouped = _group_by(by)
        asked = await _asked(ports, organization, None, start, end, Step.DAY, zone)
        whole = Period(asked.periods[0].start, asked.periods[-1].end)
        asked = _Asked(asked.owner, None, (whole,), asked.zone)
        question = Question(
            asked.owner.id, (whole,), grouped, outcome=_outcome(outcome), limit=size
        )
        return await _report(ports, asked, await ports.usage.largest(question), None)

    async def mine(self, principal: Principal) -> OwnUsage:
        """Return what a principal's key has used today and this month, and what its limits leave.

        See :meth:`~keyguard.guard.usage.Usage.mine`.
        """
        ports = self._ports
        if not isinstance(principal, Principal):
            raise InvalidValueError(f"mine takes a principal, not {shown(principal)}")
        record = await find_record(ports, principal.key_id)
        owner, now = record.organization, ports.now()
        zone = find_time_zone(owner.time_zone)
        today = civil_day(now, zone)
        first = today.start.astimezone(zone).date().replace(day=1)

        async def used(period: Period) -> tuple[UsageItem, ...]:
            asked = _Asked(owner, record.key.id, (period,), zone)
            question = Question(owner.id, (period,), GroupBy.OUTCOME, asked.key_id)
            return tuple(map(asked.item, await ports.usage.totals(question)))

        day, month = await used(today), await used(Period(start_of_day(first, zone), today.end))
        charges = ports.policy.allow(record).limits.charges
        tallies = (await ports.read_limits(charges)).tallies if charges else ()
        as_of, _ = _reported(await ports.usage.writers(), now)
        return OwnUsage(day, month, statuses(charges, tallies), as_of)


async def _asked(
    ports: ManagementPorts,
    organization: str,
    key: str | None,
    start: datetime | date | None,
    end: datetime | date | None,
    step: Step,
    zone_name: str | None,
) -> _Asked:
    _ = ports.usage  # if nothing is counted, that is the answer
    owner = await find_organization(ports, organization)
    if key is not None:
        await _check_key(ports, owner, key)
    own_zone = find_time_zone(owner.time_zone)
    zone = own_zone if zone_name is None else find_time_zone(zone_name)
    now = ports.now()
    until = now if end is None else _time("end", end, zone)
    span = _SPAN if zone == own_zone else _SPAN_ELSEWHERE
    since = _before(until, span[step]) if start is None else _time("start", start, zone)
    if since >= until:
        if end is None:
            raise InvalidValueError("start must be a time in the past")
        raise InvalidValueError(
            "end must be later than start; end is not part of the report, so for a single day give "
            "the next day as end"
        )
    periods = periods_between(since, until, step, zone)
    _check_kept(ports, periods, step, now, own_zone, differs=zone != own_zone)
    return _Asked(owner, key, periods, zone)


async def _check_key(ports: ManagementPorts, owner: Organization, key: str) -> None:
    """Refuse a key that is not the organization's as one that does not exist.

    Raises:
        NotFoundError: The organization has no such key.
    """
    try:
        record = await find_record(ports, key)
    except CorruptDataError:
        return  # what it has used can be read all the same
    if record.organization.id != owner.id:
        raise unknown("key", key)


def _check_kept(
    ports: ManagementPorts,
    periods: Sequence[Period],
    step: Step,
    now: datetime,
    own_zone: tzinfo,
    *,
    differs: bool,
) -> None:
    """Refuse periods that are finer than the stored usage.

    Raises:
        InvalidValueError: The stored usage is too coarse. The message says what can be asked for.
    """
    bucket = ports.bucket
    if any(period.start.timestamp() % bucket for period in periods):
        raise InvalidValueError(
            "usage is counted by whole hours of UTC (usage_bucket), but these periods begin within "
            "an hour: take a longer step, or a zone that differs from UTC by whole hours"
        )
    folded = civil_day(now - QUARTERS_KEPT, own_zone).start
    if periods[0].start >= folded:
        return
    kept = f"older than {QUARTERS_KEPT.days} days, usage is kept by days"
    if step in FINE:
        raise InvalidValueError(
            f"{kept}: take the step day, week or month, or start after {folded.date()}"
        )
    if differs:
        raise InvalidValueError(
            f"{kept} in the organization's own time zone: leave out zone, or ask for later periods"
        )


def _time(name: str, given: object, zone: tzinfo) -> datetime:
    if isinstance(given, date) and not isinstance(given, datetime):
        try:
            return start_of_day(given, zone)
        except OverflowError:
            raise InvalidValueError(f"{name} is beyond the calendar") from None
    if not isinstance(given, datetime):
        raise InvalidValueError(f"{name} takes a datetime or a date, not {shown(given)}")
    return in_utc(name, given)


def _before(time: datetime, span: timedelta) -> datetime:
    try:
        return time - span
    except OverflowError:
        raise InvalidValueError("that time is beyond the calendar") from None


def _group_by(name: str | None) -> GroupBy:
    try:
        return GroupBy("" if name is None else name)
    except ValueError:
        known = ", ".join(group.value for group in GroupBy if group)
        raise InvalidValueError(f"totals can be grouped by {known}, not by {shown(name)}") from None


def _family(family: str | None) -> str | None:
    if family is not None and (not isinstance(family, str) or len(family) > LONGEST_ID):
        raise InvalidValueError("family takes the id of a family, such as a key's family")
    return family


def _outcome(outcome: str | None) -> str | None:
    if outcome is not None and not isinstance(outcome, str):
        raise InvalidValueError(f"outcome takes 'allowed' or a reason, not {shown(outcome)}")
    return outcome


def _cursor(periods: Sequence[Period], total: Total) -> str:
    return f"{periods[total.period].start.timestamp():.0f}:{total.group}"


def _read_cursor(after: str | None, periods: Sequence[Period]) -> tuple[int, str] | None:
    if after is None:
        return None
    if isinstance(after, str) and _CURSOR.match(after):
        start, _, group = after.partition(":")
        time = datetime.fromtimestamp(int(start), UTC)
        number = bisect_left([period.start for period in periods], time)
        if number < len(periods) and periods[number].start == time:
            return number, group
    raise InvalidValueError(
        "after takes the next of the previous page, which must have the same step"
    )


async def _report(
    ports: ManagementPorts, asked: _Asked, totals: Sequence[Total], following: str | None
) -> UsageReport:
    as_of, late = _reported(await ports.usage.writers(), ports.now())
    complete = as_of >= asked.periods[-1].end
    return UsageReport(tuple(map(asked.item, totals)), as_of, complete, late, following)


def _reported(writers: Sequence[Writer], now: datetime) -> tuple[datetime, tuple[str, ...]]:
    """Return up to when all writers have reported, and those that are late.

    A writer that has been silent for an hour is given up. One that has just begun to count makes
    itself known within seconds.
    """
    living = [writer for writer in writers if writer.until > now - _GIVEN_UP]
    late = tuple(writer.id for writer in living if writer.until < now - _LATE)
    return min([now - _TOLD_WITHIN, *(writer.until for writer in living)]), late[:_MOST_LATE]
