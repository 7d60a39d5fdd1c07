"""Words for people: times, and all that is known of a key or an organization."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from keyguard.cli.terminal import Words, status_word
from keyguard.core.keys.records import Key, Organization
from keyguard.core.keys.requests import KeyRequest, KeyTerms, RequestStatus
from keyguard.core.spans import in_units

Details: TypeAlias = "list[tuple[str, Words | None]]"

# Each with the amount from which on a larger unit is taken. "1 year" would hide up to half a year,
# so two years are the least that is told in years.
_RELATIVE = (
    ("second", timedelta(seconds=1), 60),
    ("minute", timedelta(minutes=1), 60),
    ("hour", timedelta(hours=1), 24),
    ("day", timedelta(days=1), 2 * 365),
)
_YEAR = timedelta(days=365)


def relative(at: datetime, now: datetime) -> str:
    """Return how far a time is from now, such as ``in 90 days`` or ``3 hours ago``.

    It is told in its largest unit and rounded, so that what lasts 90 days is still told as 90 days
    a moment later.
    """
    distance = abs(at - now)
    name, amount = "year", round(distance / _YEAR)
    for smaller, unit, end in _RELATIVE:
        count = round(distance / unit)
        if count < end:
            name, amount = smaller, count
            break
    if not amount:
        return "just now"
    words = f"{amount} {name}{'' if amount == 1 else 's'}"
    return f"in {words}" if at > now else f"{words} ago"


def absolute(at: datetime, now: datetime) -> str:
    """Return a time in UTC, to the second, and how far it is from now."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC ({relative(at, now)})"


def when(at: datetime | None, now: datetime) -> str | None:
    """Return a time as :func:`absolute` does, or None for None."""
    return None if at is None else absolute(at, now)


def scope_list(scopes: Collection[str]) -> str:
    """Return scopes separated by commas, or ``none``."""
    return ", ".join(sorted(scopes)) or "none"


def when_ends(key: Key, now: datetime) -> str:
    """Return when a key stops working or stopped, such as ``in 90 days``."""
    end = key.revoked_at or key.ends_at
    return "never" if end is None else relative(end, now)


def last_used(key: Key, now: datetime) -> str:
    """Return when a key was last used, such as ``2 hours ago``. The store keeps whole minutes."""
    if key.last_used_at is None:
        return "never"
    return relative(key.last_used_at, now.replace(second=0, microsecond=0))


def organization_status(organization: Organization) -> Words:
    """Return whether an organization is enabled, in colour."""
    return status_word("enabled" if organization.disabled_at is None else "disabled")


def organization_details(organization: Organization, now: datetime) -> Details:
    """Return all that is known of an organization, by name."""
    scopes, longest = organization.scopes, organization.max_key_lifetime
    number = organization.max_keys
    most = "for ever" if longest is None else f"at most {in_units(longest.total_seconds())}"
    return [
        ("Organization", organization.id),
        ("Slug", organization.slug),
        ("Name", organization.name),
        ("Status", organization_status(organization)),
        ("Created", absolute(organization.created_at, now)),
        ("Disabled", when(organization.disabled_at, now)),
        ("Key scopes", "any" if scopes is None else scope_list(scopes)),
        ("Keys work", most),
        ("Keys", "any number" if number is None else f"at most {number}"),
        ("Time zone", organization.time_zone),
        ("Plan", organization.plan or "none"),
        *(("Metadata", f"{name}={value}") for name, value in organization.metadata.items()),
        *(("Limit", f"{limit.name}: {limit.rate}") for limit in organization.limits),
    ]


def key_details(key: Key, organization: Organization, now: datetime) -> Details:
    """Return all that is known of a key, by name."""
    owner = f"{organization.slug} ({organization.id})"
    if organization.disabled_at is not None:
        owner += ", disabled: none of its keys works"
    return [
        ("Key", key.id),
        ("Name", key.name),
        ("Organization", owner),
        ("Status", status_word(key.status(now).value)),
        ("Scopes", scope_list(key.scopes)),
        ("Created", absolute(key.created_at, now)),
        ("Works from", when(key.not_before, now)),
        ("Expires", when(key.expires_at, now) or "never"),
        ("Last used", _last_used_in_full(key, now)),
        ("Networks", ", ".join(key.allowed_networks)),
        ("Successor", key.successor),
        ("Grace ends", when(key.grace_ends_at, now) if key.revoked_at is None else None),
        ("Revoked", when(key.revoked_at, now)),
        ("Reason", key.revoked_reason),
        ("Note", key.revoked_note),
        ("Owner", key.owner),
        ("Family", key.family),
        *(("Limit", f"{limit.name}: {limit.rate}") for limit in key.limits),
        *(("Metadata", f"{name}={value}") for name, value in key.metadata.items()),
    ]


def request_details(request: KeyRequest, organization: Organization, now: datetime) -> Details:
    """Return all that is known of a request for a key, by name."""
    status = request.status(now)
    is_pending = status is RequestStatus.PENDING
    return [
        ("Request", request.id),
        ("Requester", request.requester),
        ("Name", request.name),
        ("Organization", f"{organization.slug} ({organization.id})"),
        ("Status", status_word(status.value)),
        ("Reason", request.reason),
        *_terms("Asked", request.asked),
        *(() if request.granted is None else _terms("Granted", request.granted)),
        ("Decided by", ", ".join(request.decided_by)),
        ("Note", request.note),
        ("Created", absolute(request.created_at, now)),
        ("Expires", when(request.pending_until, now) if is_pending else None),
        ("Decided", when(request.decided_at, now)),
        ("Claim by", when(request.claim_by, now) if request.key is None else None),
        ("Claimed", when(request.claimed_at, now)),
        ("Key", request.key),
    ]


def _terms(which: str, terms: KeyTerms) -> Iterator[tuple[str, str]]:
    yield which, scope_list(terms.scopes)
    if terms.expires_in is not None:
        yield f"{which} for", in_units(terms.expires_in.total_seconds())
    if terms.allowed_networks:
        yield f"{which} from", ", ".join(terms.allowed_networks)
    for limit in terms.limits:
        yield f"{which} limit", f"{limit.name}: {limit.rate}"


def _last_used_in_full(key: Key, now: datetime) -> str:
    if key.last_used_at is None:
        return "never"
    at = f"{key.last_used_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC ({last_used(key, now)})"
    return at if key.last_used_address is None else f"{at}, from {key.last_used_address}"
