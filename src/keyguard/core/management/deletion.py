"""Deletes keys that ended long ago, in batches of one commit each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from keyguard.core.keys.audit import Actor, describe_deletion
from keyguard.core.keys.commit import Commit
from keyguard.core.keys.lists import KeyFilter
from keyguard.core.keys.records import Key
from keyguard.core.keys.results import DeletedKeys
from keyguard.core.management.authority import ONLY_THE_SERVICE, Authority
from keyguard.core.management.common import Operations, check_actor, earlier, settled
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.values import Page
from keyguard.exceptions import InvalidValueError, RefusedError, shown

_LEAST_KEPT = timedelta(days=1)

_BATCH = 200  # one commit each, which Redis takes about 10 ms for
_SLACK = timedelta(hours=1)
"""By how much the clock of this machine may be ahead of the store's."""


class Deletion(Operations):
    """Deletes keys that ended long ago."""

    async def delete_ended(
        self,
        *,
        ended_for: timedelta | None = None,
        dry_run: bool = False,
        actor: Actor = None,
    ) -> DeletedKeys:
        """Delete the keys of all organizations that ended long ago.

        See :meth:`~keyguard.guard.keys.Keys.delete_ended`.
        """
        ports = self._ports
        check_actor(actor)
        kept = kept_for(
            ports, {"ended_for": ended_for, "keep_ended_keys": ports.keep_ended_keys}, _LEAST_KEPT
        )
        before = earlier(ports.now(), kept)
        count, damaged, after = 0, list[str](), None
        while True:
            page = await self._delete_page(before, after, kept, actor, dry_run=dry_run)
            count += len(page.items)
            damaged += page.damaged
            after = page.next
            if after is None:
                return DeletedKeys(count=count, before=before, damaged=tuple(damaged))

    async def _delete_page(
        self,
        before: datetime,
        after: str | None,
        kept: timedelta,
        actor: Actor,
        *,
        dry_run: bool,
    ) -> Page[Key]:
        """Delete a page of keys that ended before a time, and return it."""
        ports = self._ports
        wanted = KeyFilter(ended_before=before)

        async def attempt(authority: Authority) -> tuple[Commit | None, Page[Key]]:
            refuse_bounded(authority)
            page = await ports.store.list_keys(wanted, after=after, limit=_BATCH)
            if dry_run or not page.items:
                return None, page
            now = ports.now()
            entries = tuple(describe_deletion(now, actor, key) for key in page.items)
            return Commit(entries=entries, deleted=page.items, kept=kept - _SLACK), page

        return await settled(ports, actor, attempt)


def kept_for(
    ports: ManagementPorts, given: Mapping[str, timedelta | None], least: timedelta
) -> timedelta:
    """Return for how long a key or an entry is kept before it is deleted.

    Args:
        ports: The ports of management.
        given: The argument and the setting, by their names. The first that is not None counts.
        least: The shortest span that is allowed, if requests do not need a longer one.

    Raises:
        InvalidValueError: No span is given, or the value is no span or is too short.
    """
    least, why = ports.request_terms.least_kept(least)
    for name, span in given.items():
        if span is not None:
            if not isinstance(span, timedelta):
                raise InvalidValueError(
                    f"{name} takes a timedelta, such as timedelta(days=400), not {shown(span)}"
                )
            if span < least:
                days = -(-least // timedelta(days=1))
                words = "a day" if days == 1 else f"{days} days"
                raise InvalidValueError(f"{name} must be at least {words}{why}, not {span}")
            return span
    name = next(iter(given))
    raise InvalidValueError(
        f"it is not set how old a record must be to be deleted: pass {name}, such as "
        f"{name}=timedelta(days=400), or set {' or '.join(list(given)[1:])} in the settings of "
        "this guard"
    )


def refuse_bounded(authority: Authority) -> None:
    """Refuse an actor that may not change all organizations.

    Raises:
        RefusedError: The actor is a key, or a person who is no operator.
    """
    if authority.is_bounded:
        raise RefusedError(
            f"{authority} can't delete what all organizations share; {ONLY_THE_SERVICE}"
        )
