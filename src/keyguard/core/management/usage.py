"""How usage is read."""

from __future__ import annotations

from datetime import date, datetime

from keyguard.core.identity.principal import Principal
from keyguard.core.keys.audit import Actor
from keyguard.core.management.common import Operations
from keyguard.core.usage.evidence import dismiss_hint, list_hints, tell_new_hints
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.reports import read_own, read_report, read_top
from keyguard.core.usage.results import OwnUsage, UsageReport
from keyguard.core.values import Page


class AsyncUsage(Operations):
    """The usage that one guard's key store keeps, for async code."""

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
        return await read_report(
            self._ports,
            organization=organization,
            key=key,
            family=family,
            start=start,
            end=end,
            step=step,
            zone=zone,
            group_by=group_by,
            after=after,
            limit=limit,
        )

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
        return await read_top(
            self._ports,
            organization=organization,
            start=start,
            end=end,
            zone=zone,
            by=by,
            outcome=outcome,
            limit=limit,
        )

    async def mine(self, principal: Principal) -> OwnUsage:
        """Return what the key of a principal has used today and this month, and what is left to it.

        See :meth:`~keyguard.guard.usage.Usage.mine`.
        """
        return await read_own(self._ports, principal)

    async def hints(
        self, *, organization: str, after: str | None = None, limit: int = 100
    ) -> Page[Hint]:
        """Return one page of what a person should look at, the most urgent first.

        See :meth:`~keyguard.guard.usage.Usage.hints`.
        """
        return await list_hints(self._ports, organization=organization, after=after, limit=limit)

    async def new_hints(self, *, organization: str) -> tuple[Hint, ...]:
        """Return the hints that this method has not returned before, and tell the hooks of them.

        See :meth:`~keyguard.guard.usage.Usage.new_hints`.
        """
        return await tell_new_hints(self._ports, organization=organization)

    async def dismiss(
        self, *, organization: str, hint: str, until: datetime | None = None, actor: Actor = None
    ) -> datetime:
        """Keep a hint from being shown for a time.

        See :meth:`~keyguard.guard.usage.Usage.dismiss`.
        """
        return await dismiss_hint(
            self._ports, organization=organization, hint=hint, until=until, actor=actor
        )
