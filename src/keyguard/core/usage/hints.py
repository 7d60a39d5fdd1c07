"""Hints: what a person should look at. Each comes from one rule, with evidence and no score.

Each rule is a function of values. It returns a hint or None.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from keyguard.core.identity.scopes import ScopeGrant
from keyguard.core.keys.records import Key, KeyStatus
from keyguard.core.usage.values import Period

DORMANT_DAYS = 30
WOKEN_DAYS = 7
"""For how many days a hint says that a dormant key woke."""

SURGE_FACTOR = 8
SURGE_LEAST = 50
SURGE_WEEKS = 5
REFUSED_LEAST = 20
PRESENTED_DAYS = 7
NETWORK_DAYS = 7
"""For how many days a hint says that a network is new."""

MOST_NETWORKS = 20
"""How many networks a key may be known from. Beyond, a new one says nothing."""

UNUSED_DAYS = 90
ENDS_WITHIN = (1, 7, 30)
"""The days before a key's end at which a hint begins to tell of it, the least first."""

_LAST_PART = 10


class HintKind(enum.StrEnum):
    """The rule behind a hint, the most urgent first."""

    ENDED_KEY_PRESENTED = "ended_key_presented"
    PREDECESSOR_USED = "predecessor_used"
    ENDS_SOON = "ends_soon"
    MOSTLY_REFUSED = "mostly_refused"
    DORMANT_WOKE = "dormant_woke"
    NEW_NETWORK = "new_network"
    SURGE = "surge"
    UNUSED = "unused"
    SCOPES_UNNEEDED = "scopes_unneeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """Something that a person should look at.

    Args:
        id: What identifies it while its cause lasts, up to 100 ASCII characters.
        kind: The rule that found it.
        organization: The id of the organization.
        key_id: The id of the key.
        family: The family of the key.
        since: Since when the rule has held, in UTC.
        evidence: The facts behind the hint: numbers, and times in ISO 8601.
        text: The hint in a sentence.
    """

    id: str
    kind: HintKind
    organization: str
    key_id: str
    family: str
    since: datetime
    evidence: Mapping[str, str | int]
    text: str


def ended_key_presented(key: Key, days: Sequence[tuple[Period, int]], now: datetime) -> Hint | None:
    """Return a hint if somebody still presents a key that was revoked, has expired or was rotated.

    Args:
        key: The key.
        days: How many of its requests were refused as its own end says, on each of the last days.
        now: The time.
    """
    counted = [(day, n) for day, n in days if n]
    if not counted or key.status(now) in (KeyStatus.ACTIVE, KeyStatus.NOT_YET_VALID):
        return None
    requests = sum(n for _, n in counted)
    state = key.status(now).value
    last = counted[-1][0].start
    return _hint(
        HintKind.ENDED_KEY_PRESENTED,
        key,
        since=counted[0][0].start,
        evidence={"requests": requests, "status": state, "last_day_began": _iso(last)},
        text=f"The key is {state}, and was still presented {_times(requests)} in {len(days)} days.",
    )


def predecessor_used(key: Key, successor: Key, now: datetime) -> Hint | None:
    """Return a hint if a rotated key is still used in the last tenth of its grace.

    Args:
        key: The key.
        successor: The key that replaces it, which was issued when the grace began.
        now: The time.
    """
    end, used_at = key.grace_ends_at, key.last_used_at
    if end is None or used_at is None or key.status(now) is not KeyStatus.ACTIVE:
        return None
    since = end - (end - successor.created_at) / _LAST_PART
    if used_at < since:
        return None
    return _hint(
        HintKind.PREDECESSOR_USED,
        key,
        since=since,
        evidence={
            "successor": successor.id,
            "grace_ends_at": _iso(end),
            "last_used_at": _iso(used_at),
        },
        text=f"The key ends {_at(end)}, as {successor.id} replaces it, and was still used "
        f"{_at(used_at)}.",
    )


def ends_soon(key: Key, now: datetime) -> Hint | None:
    """Return a hint if a key ends within 30 days, 7 days or a day.

    A key that was made for no longer than that, or that has a successor, gives no such hint.

    Args:
        key: The key.
        now: The time.
    """
    end = key.ends_at
    if end is None or key.successor is not None or key.status(now) in _ENDED:
        return None
    for days in ENDS_WITHIN:
        span = timedelta(days=days)
        if end - now <= span < end - key.created_at:
            return _hint(
                HintKind.ENDS_SOON,
                key,
                str(days),
                since=end - span,
                evidence={"ends_at": _iso(end), "days": days},
                text=f"The key ends {_at(end)}, and has no successor.",
            )
    return None


def mostly_refused(
    key: Key, outcomes: Mapping[str, int], allowed: int, period: Period, now: datetime
) -> Hint | None:
    """Tell that more than half of a working key's requests were refused, of at least 20.

    Args:
        key: The key.
        outcomes: How many of its requests in the period were refused, by reason.
        allowed: How many were let in.
        period: The period.
        now: The time.
    """
    refused = sum(outcomes.values())
    requests = refused + allowed
    if (
        requests < REFUSED_LEAST
        or refused <= requests // 2
        or key.status(now) is not KeyStatus.ACTIVE
    ):
        return None
    reason, most = max(outcomes.items(), key=lambda item: (item[1], item[0]))
    return _hint(
        HintKind.MOSTLY_REFUSED,
        key,
        since=period.start,
        evidence={"requests": requests, "refused": refused, "reason": reason, "by_reason": most},
        text=f"{refused} of {requests} requests within a day were refused, most often as {reason}.",
    )


def dormant_woke(key: Key, days: Sequence[tuple[Period, int]]) -> Hint | None:
    """Return a hint if a key was used in the last 7 days, after 30 days or more without a request.

    Args:
        key: The key.
        days: How many of its requests were let in on each of the last 37 days.
    """
    for number in range(DORMANT_DAYS, len(days)):
        day, n = days[number]
        if not n:
            continue
        silence = days[number - DORMANT_DAYS : number]
        if any(requests for _, requests in silence) or key.created_at >= silence[0][0].start:
            continue
        return _hint(
            HintKind.DORMANT_WOKE,
            key,
            since=day.start,
            evidence={"used_on": _iso(day.start), "requests": n, "silent_days": DORMANT_DAYS},
            text=f"The key was used on the day from {_at(day.start)}, after {DORMANT_DAYS} days "
            "or more without a request.",
        )
    return None


def surge(key: Key, quarters: Sequence[tuple[Period, int, Sequence[int]]]) -> Hint | None:
    """Tell that a quarter of an hour had eight times the requests that are usual, and at least 50.

    Args:
        key: The newest key of a family.
        quarters: The last quarters with the family's requests in each, and its requests in the
            same quarter of each of the five weeks before.
    """
    found: Hint | None = None
    largest = 0
    for quarter, n, before in quarters:
        usual = sorted(before)[len(before) // 2]
        if n < SURGE_LEAST or n < SURGE_FACTOR * usual or n <= largest:
            continue
        largest = n
        found = _hint(
            HintKind.SURGE,
            key,
            f"{quarter.start:%Y%m%d}",
            since=quarter.start,
            evidence={"quarter": _iso(quarter.start), "requests": n, "usual": usual},
            text=f"{n} requests came in the quarter of an hour from {_at(quarter.start)}; the "
            f"median of that quarter in {len(before)} weeks is {usual}.",
        )
    return found


def new_networks(
    key: Key, known: Collection[str], days: Sequence[tuple[Period, Collection[str]]]
) -> Iterator[Hint]:
    """Return a hint if a key came from a network from which it had not come before.

    A key that has not come from anywhere before, or from more than 20 networks, gives no such hint.

    Args:
        key: The key.
        known: The networks from which it had come before the days.
        days: The networks from which it came on each of the last days.
    """
    if not 0 < len(known) <= MOST_NETWORKS:
        return
    told = {*known}
    for day, networks in days:
        for network in sorted({*networks} - told):
            told.add(network)
            yield _hint(
                HintKind.NEW_NETWORK,
                key,
                network,
                since=day.start,
                evidence={"network": network, "day": _iso(day.start), "known": len(known)},
                text=f"The key was used from {network}; before that, it was used from {len(known)} "
                f"other {'network' if len(known) == 1 else 'networks'}.",
            )


def unused(key: Key, now: datetime) -> Hint | None:
    """Return a hint if nobody has used a working key for 90 days.

    Args:
        key: The key.
        now: The time.
    """
    span = timedelta(days=UNUSED_DAYS)
    idle_since = max(
        at for at in (key.last_used_at, key.not_before, key.created_at) if at is not None
    )
    if now - idle_since < span or key.status(now) is not KeyStatus.ACTIVE:
        return None
    used = "never" if key.last_used_at is None else _iso(key.last_used_at)
    return _hint(
        HintKind.UNUSED,
        key,
        since=idle_since + span,
        evidence={"last_used_at": used, "days": (now - idle_since).days},
        text=f"Nobody has used the key for {(now - idle_since).days} days: revoke it if nobody "
        "needs it.",
    )


def scopes_unneeded(
    key: Key, grants: Mapping[str, ScopeGrant], needed: Collection[str], since: datetime
) -> Hint | None:
    """Return a hint on scopes that no rule and no decorator required of a key in 90 days.

    Args:
        key: The key.
        grants: What each of its scopes grants.
        needed: The scopes that it was asked for.
        since: When the 90 days began.
    """
    unneeded = [
        scope
        for scope, grant in sorted(grants.items())
        if not any(scope in grant for scope in needed)
    ]
    if not unneeded or key.created_at > since:
        return None
    return _hint(
        HintKind.SCOPES_UNNEEDED,
        key,
        since=since,
        evidence={"scopes": " ".join(unneeded), "days": UNUSED_DAYS},
        text=f"In {UNUSED_DAYS} days, no request with the key needed {', '.join(unneeded)}.",
    )


_ENDED = (KeyStatus.EXPIRED, KeyStatus.ROTATED, KeyStatus.REVOKED)


def _hint(
    kind: HintKind,
    key: Key,
    detail: str = "",
    *,
    since: datetime,
    evidence: Mapping[str, str | int],
    text: str,
) -> Hint:
    return Hint(
        id=":".join(filter(None, (kind.value, key.id, detail))),
        kind=kind,
        organization=key.organization,
        key_id=key.id,
        family=key.family,
        since=since,
        evidence=evidence,
        text=text,
    )


def _iso(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _at(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"
