"""What is shown of organizations and keys: as JSON documents, and in words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rich.text import Text

from keyguard.cli.tables import status
from keyguard.cli.times import absolute, instant, relative
from keyguard.sansio.charges import LimitStatus
from keyguard.sansio.limits import Limit
from keyguard.sansio.models import Key, Organization

__all__ = [
    "ending",
    "key_details",
    "key_document",
    "limit_document",
    "organization_document",
    "organization_status",
    "scope_list",
    "status_document",
]


def organization_document(organization: Organization) -> dict[str, Any]:
    """Return an organization as a JSON document has it."""
    return {
        "id": organization.id,
        "slug": organization.slug,
        "name": organization.name,
        "created_at": instant(organization.created_at),
        "disabled_at": instant(organization.disabled_at),
        "limits": [limit_document(limit) for limit in organization.limits],
    }


def key_document(key: Key, now: datetime) -> dict[str, Any]:
    """Return a key as a JSON document has it."""
    return {
        "id": key.id,
        "family": key.family,
        "organization": key.organization,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "status": key.status(now).value,
        "created_at": instant(key.created_at),
        "not_before": instant(key.not_before),
        "expires_at": instant(key.expires_at),
        "revoked_at": instant(key.revoked_at),
        "revoked_reason": key.revoked_reason,
        "metadata": dict(key.metadata),
        "limits": [limit_document(limit) for limit in key.limits],
    }


def limit_document(limit: Limit) -> dict[str, Any]:
    """Return a limit as a JSON document has it."""
    return {
        "name": limit.name,
        "rate": limit.rate,
        "per": limit.per,
        "strategy": limit.strategy.value,
        "enforce": limit.enforce,
    }


def status_document(status: LimitStatus) -> dict[str, Any]:
    """Return how a policy stands as a JSON document has it."""
    return {
        "name": status.name,
        "quota": status.quota,
        "window": status.window,
        "remaining": status.remaining,
        "reset_after": status.reset_after,
        "enforce": status.enforce,
    }


def organization_status(organization: Organization) -> Text:
    """Return what an organization's keys are good for."""
    return status("enabled" if organization.disabled_at is None else "disabled")


def scope_list(scopes: frozenset[str]) -> str:
    """Return scopes in words."""
    return ", ".join(sorted(scopes)) or "none"


def ending(key: Key, now: datetime) -> str:
    """Return when a key ends or ended, in words."""
    end = key.revoked_at or key.expires_at
    return "never" if end is None else relative(end, now)


def key_details(
    key: Key, organization: Organization, now: datetime
) -> list[tuple[str, str | Text | None]]:
    """Return all that is known of a key, by name."""

    def when(at: datetime | None) -> str | None:
        return None if at is None else absolute(at, now)

    owner = f"{organization.slug} ({organization.id})"
    if organization.disabled_at is not None:
        owner += ", disabled: none of its keys works"
    return [
        ("Key", key.id),
        ("Name", key.name),
        ("Organization", owner),
        ("Status", status(key.status(now).value)),
        ("Scopes", scope_list(key.scopes)),
        ("Created", when(key.created_at)),
        ("Works from", when(key.not_before)),
        ("Expires", when(key.expires_at) or "never"),
        ("Revoked", when(key.revoked_at)),
        ("Reason", key.revoked_reason),
        *(("Limit", f"{limit.name}: {limit.rate}") for limit in key.limits),
        *(("Metadata", f"{name}={value}") for name, value in key.metadata.items()),
    ]
