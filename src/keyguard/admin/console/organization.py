"""Pages on one organization: what goes on in it, its audit trail and its limits."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta

from keyguard.admin.console.charts import recent
from keyguard.admin.console.page import Pages, view_of
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.core.keys.records import Key, KeyStatus
from keyguard.core.keys.requests import KeyRequest, RequestStatus
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.periods import Step
from keyguard.exceptions import ConfigurationError

_COUNTED = 1000
_SOON = timedelta(days=30)

_ONE = "/organizations/{organization}"
PAGES = Pages()


@PAGES.add("GET", _ONE)
async def show_overview(context: Context) -> Answer:
    """Show what goes on in an organization."""
    view = await view_of(context)
    if Right.READ_KEYS not in view.rights:
        return view.go(
            f"{view.home}/mine" if Right.OWN_KEYS in view.rights else f"{view.home}/usage"
        )
    now, name = view.now, view.owner.id
    listed = await context.management.keys.list(organization=name, limit=_COUNTED)
    counts = Counter(key.status(now) for key in listed)
    ending = await context.management.keys.list(organization=name, expiring_within=_SOON, limit=5)
    day = None
    hints: list[tuple[Hint, Key]] = []
    if Right.READ_USAGE in view.rights:
        found = await recent(view, step=Step.HOUR, back=timedelta(hours=23))
        day = None if found is None else found[0]
        with suppress(ConfigurationError):  # the guard counts no usage
            found_hints = await context.management.usage.hints(organization=name, limit=5)
            hints = [(hint, await context.management.keys.get(hint.key_id)) for hint in found_hints]
    waiting: tuple[KeyRequest, ...] | None = None
    if Right.READ_REQUESTS in view.rights:
        pending = await context.management.requests.list(
            organization=name, statuses=[RequestStatus.PENDING], limit=5
        )
        waiting = pending.items
    return view.show(
        "overview.html",
        "Overview",
        section="Overview",
        can=view.key_rights,
        states=[(status.value, counts[status]) for status in KeyStatus if counts[status]],
        cut=listed.next is not None,
        day=day,
        hints=hints,
        ending=ending.items,
        waiting=waiting,
        parties=await view.keys_in(waiting or ()),
    )


@PAGES.add("GET", f"{_ONE}/audit", Right.READ_AUDIT)
async def show_audit(context: Context) -> Answer:
    """Show the audit trail of an organization."""
    view = await view_of(context)
    entries = await context.management.audit.list(
        organization=view.owner.id, after=view.query("after") or None, limit=50
    )
    return view.show(
        "audit.html",
        "Audit",
        section="Audit",
        entries=entries.items,
        next=view.next_page(entries.next),
    )


@PAGES.add("GET", f"{_ONE}/limits", Right.READ_KEYS)
async def show_limits(context: Context) -> Answer:
    """Show the limits of an organization, and what is left to its keys."""
    view = await view_of(context)
    listed = await context.management.keys.list(
        organization=view.owner.id, after=view.query("after") or None, limit=20
    )
    rows = [
        (key, await context.management.keys.limits(key.id))
        for key in listed
        if key.status(view.now) is KeyStatus.ACTIVE
    ]
    return view.show(
        "limits.html",
        "Limits",
        section="Limits",
        own=view.owner.limits,
        rows=rows,
        next=view.next_page(listed.next),
    )
