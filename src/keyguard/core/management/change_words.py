"""Words for the fields of audit entries, on the command line and in the console."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from keyguard.core.spans import in_units

__all__ = ["in_words", "word_of"]

_WORDS = {
    "not_before": "works from",
    "expires_at": "expires",
    "grace_ends_at": "grace ends",
    "allowed_networks": "networks",
    "max_key_lifetime": "keys work for",
    "max_keys": "keys at most",
}
# The words for a field without a value.
_ABSENT = {
    "not_before": "at once",
    "expires_at": "never",
    "allowed_networks": "any",
    "max_key_lifetime": "ever",
    "max_keys": "any number",
    "plan": "none",
    "scopes": "any",  # of an organization
}


def word_of(name: str) -> str:
    """Return what a field is called, such as ``grace ends`` for ``grace_ends_at``."""
    return _WORDS.get(name, name.replace("_", " "))


def _in_utc(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def in_words(name: str, value: Any, moment: Callable[[datetime], str] = _in_utc) -> str:
    """Return the value of a field.

    Args:
        name: The field's name.
        value: The value, as the audit trail stores it.
        moment: How a time is written.

    Raises:
        LookupError, TypeError, ValueError, AttributeError, OverflowError: The entry does not hold
            what keyguard writes.
    """
    match name:
        case _ if value is None:
            return _ABSENT.get(name, "none")
        case "limits":
            return ", ".join(f"{limit['name']} {limit['rate']}" for limit in value) or "none"
        case "max_key_lifetime":
            return in_units(value)
        case "metadata":
            return ", ".join(f"{key}={text}" for key, text in value.items()) or "none"
        case "allowed_networks":
            return ", ".join(value) or "any"
        case "scopes":
            return ", ".join(sorted(value)) or "none"
        case "asked" | "granted":
            terms = sorted(value.items(), reverse=True)  # the scopes first
            return (
                ", ".join(in_words(field, item, moment) for field, item in terms if item)
                or "no scope"
            )
        case "expires_in":
            return in_units(value)
        case "decided_by":
            return ", ".join(value) or "nobody"
        case _ if name.endswith(("_at", "_before", "_until", "claim_by")):
            return moment(datetime.fromisoformat(value))
        case _:
            return str(value)
