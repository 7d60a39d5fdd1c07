"""Usage, for sync code."""

from __future__ import annotations

from datetime import date, datetime

from keyguard.core.identity.principal import Principal
from keyguard.core.keys.audit import Actor
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.management.usage import AsyncUsage
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.results import OwnUsage, UsageReport
from keyguard.core.values import Page
from keyguard.runtime.sync import run_sync


class Usage:
    """The usage that one guard's key store keeps."""

    def __init__(self, ports: ManagementPorts) -> None:
        self._operations = AsyncUsage(ports)

    def report(
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

        Args:
            organization: Id or slug of the organization whose keys were used.
            key: The id of the only key that is wanted.
            family: The only family that is wanted: a key, its predecessors and its successors.
            start: A time in the first period, or a date in the zone. By default a report covers 7
                days, 25 quarters or hours, 8 weeks or 13 months.
            end: The time or date that the last period reaches; by default now.
            step: The length of the periods: ``"15m"``, ``"hour"``, ``"day"``, ``"week"`` (from
                Monday) or ``"month"``, by the clocks of the zone.
            zone: The name of a time zone; by default that of the organization.
            group_by: What counts are grouped by: ``"key"``, ``"family"``, ``"outcome"`` or
                ``"tag"``; None for all together.
            after: The ``next`` of the page before, or None for the first.
            limit: How many items at most, 1 to 1000.

        Raises:
            InvalidValueError: An argument is not valid, there are too many periods, or the store no
                longer keeps usage in such detail: after 35 days it keeps only days of the
                organization's own zone.
            NotFoundError: There is no such organization, or it has no such key.
            ConfigurationError: The guard counts no usage, or its key store keeps none.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.report(
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
        )

    def top(
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

        Args:
            organization: Id or slug of the organization whose keys were used.
            start: A time in the first day, or its date in the zone; by default a week ago.
            end: The time or date that the last day reaches; by default now.
            zone: The name of a time zone; by default that of the organization.
            by: What counts are grouped by, as for :meth:`report`.
            outcome: The only outcome that counts: ``"allowed"``, or the reason of refusals.
            limit: How many items at most, 1 to 1000.

        Returns:
            A report of one period, the item with the most requests first.

        Raises:
            InvalidValueError: As for :meth:`report`.
            NotFoundError: There is no such organization.
            ConfigurationError: The guard counts no usage, or its key store keeps none.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.top(
                organization=organization,
                start=start,
                end=end,
                zone=zone,
                by=by,
                outcome=outcome,
                limit=limit,
            )
        )

    def mine(self, principal: Principal) -> OwnUsage:
        """Return what a principal's key has used today and this month, and what its limits leave.

        Args:
            principal: Who asks.

        Raises:
            InvalidValueError: The argument is not a principal.
            NotFoundError: The key does not exist.
            ConfigurationError: The guard counts no usage, or its key store keeps none.
            StoreError: The key store, or the store of the counters, failed.
        """
        return run_sync(self._operations.mine(principal))

    def hints(self, *, organization: str, after: str | None = None, limit: int = 100) -> Page[Hint]:
        """Return one page of what a person should look at, the most urgent first.

        Args:
            organization: Id or slug of the organization.
            after: The ``next`` of the page before, or None for the first.
            limit: How many at most, 1 to 1000.

        Returns:
            The hints that nobody dismissed, as they are now.

        Raises:
            InvalidValueError: The limit is out of range, or this machine does not know the
                organization's time zone.
            NotFoundError: There is no such organization.
            ConfigurationError: The guard counts no usage, or its key store keeps none.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.hints(organization=organization, after=after, limit=limit))

    def new_hints(self, *, organization: str) -> tuple[Hint, ...]:
        """Return the hints that this method has not returned before, and report them to the hooks.

        Call it once a day, from whatever runs such jobs. Several processes may do so: each hint is
        returned to one of them. A hint whose cause lasts is returned again after 90 days.

        Args:
            organization: Id or slug of the organization.

        Returns:
            The hints, the most urgent first. The hooks got an event ``HintFound`` for each.

        Raises:
            InvalidValueError: This machine does not know the organization's time zone.
            NotFoundError: There is no such organization.
            ConfigurationError: The guard counts no usage, or its key store keeps none.
            StoreError: The key store failed.
        """
        return run_sync(self._operations.new_hints(organization=organization))

    def dismiss(
        self, *, organization: str, hint: str, until: datetime | None = None, actor: Actor = None
    ) -> datetime:
        """Keep a hint from being shown for a time.

        The audit trail gets no entry, as no key and no organization changes.

        Args:
            organization: Id or slug of the organization.
            hint: The id of a hint that :meth:`hints` returns.
            until: When that time ends, at most 800 days from now; by default in 30 days. It
                replaces the end that was set before.
            actor: Who dismisses it. A principal can dismiss only hints of its own organization.

        Returns:
            When that time ends.

        Raises:
            InvalidValueError: The end is not in the next 800 days.
            NotFoundError: There is no such organization, or it has no such hint now.
            RefusedError: The actor's key no longer works.
            ConfigurationError: The guard counts no usage, or its key store keeps none.
            StoreError: The key store failed.
        """
        return run_sync(
            self._operations.dismiss(organization=organization, hint=hint, until=until, actor=actor)
        )
