"""Bounds how often a requester may ask for keys: one at a time, a number open, a number a day."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from hashlib import sha256

from keyguard.core.keys.records import Organization
from keyguard.core.keys.requests import OPEN, RequestFilter
from keyguard.core.keys.temporary import Temporary
from keyguard.core.management.common import later
from keyguard.core.management.ports import ManagementPorts
from keyguard.core.values import LATEST
from keyguard.exceptions import RefusedError, StoreError

MOST_OPEN = 5
"""How many open requests a requester may have in an organization."""

MOST_A_DAY = 20
"""How many requests a requester may make in an organization within a day."""

_ASKING, _ASKED = "asking", "asked"
_DAY = timedelta(days=1)
TURN = timedelta(seconds=10)
"""How long a requester's turn is, without the calls that write the request and end the turn."""


async def take_turn(
    ports: ManagementPorts, turns: set[str], owner: Organization, requester: str, now: datetime
) -> None:
    """Let a requester make one request at a time, and refuse a requester who has too many open.

    Args:
        ports: The ports of management.
        turns: The digests of the turns that were taken before. This turn is added.
        owner: The organization.
        requester: Who asks.
        now: The time.

    Raises:
        RefusedError: Another request of the requester is being made, or too many are open.
    """
    store = ports.store
    turn = _digest(owner, requester)
    if turn not in turns:
        end = later(now, TURN + 2 * ports.longest_call, LATEST)
        if not await store.put_temporary(Temporary(_ASKING, turn, "", end), now):
            raise RefusedError(f"another request of {requester!r} is being made; try again")
        turns.add(turn)
    wanted = RequestFilter(at=now, organization=owner.id, requester=requester, statuses=OPEN)
    page = await store.list_requests(wanted, after=None, limit=MOST_OPEN)
    if len(page.items) + len(page.damaged) >= MOST_OPEN:
        raise RefusedError(
            f"{requester!r} has {MOST_OPEN} open requests in organization {owner.slug!r} "
            "already; claim or withdraw one first"
        )


async def count_request(
    ports: ManagementPorts, owner: Organization, requester: str, now: datetime
) -> None:
    """Count a request of the requester whose turn it is, and refuse too many within a day.

    Raises:
        RefusedError: The requester has made too many requests within a day.
    """
    store, digest = ports.store, _digest(owner, requester)
    kept = await store.find_temporary(_ASKED, digest, now)
    ends = [] if kept is None else kept.value.split()  # when each no longer counts
    counted = [end for end in ends if end > now.isoformat()]
    if len(counted) >= MOST_A_DAY:
        raise RefusedError(
            f"{requester!r} has made {MOST_A_DAY} requests in organization {owner.slug!r} "
            "within a day; ask again later"
        )
    end = later(now, _DAY, LATEST)
    asked = Temporary(_ASKED, digest, " ".join([*counted, end.isoformat()]), end)
    if not await store.replace_temporary(asked, now):
        await store.put_temporary(asked, now)


async def end_turns(ports: ManagementPorts, turns: set[str], now: datetime) -> None:
    """End turns that were taken. A turn that can't be ended expires."""
    with suppress(StoreError):
        for turn in turns:
            await ports.store.take_temporary(_ASKING, turn, now)


def _digest(owner: Organization, requester: str) -> str:
    """Return the digest under which temporary values of a requester are kept."""
    return sha256(f"{owner.id}:{requester}".encode()).hexdigest()
