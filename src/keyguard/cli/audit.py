"""``keyguard audit``: who changed what, and when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from keyguard.cli import pages
from keyguard.cli.options import Common, Json, Url, key_id
from keyguard.cli.pages import After, All, Limit
from keyguard.cli.records import lifetime
from keyguard.cli.tables import table
from keyguard.cli.times import instant, relative
from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.keys.records import Page

__all__ = ["audit"]

# What the other columns say, or what says nothing to people.
_SAID_ELSEWHERE = {"id", "organization", "family", "created_at", "disabled_at", "rotation_key"}
_FIRST = (
    *("slug", "name", "scopes", "not_before", "expires_at", "max_key_lifetime", "limits"),
    "allowed_networks",
)
_WORDS = {
    "not_before": "works from",
    "expires_at": "expires",
    "grace_ends_at": "grace ends",
    "allowed_networks": "networks",
    "max_key_lifetime": "keys work for",
}
# What a field holds where it holds nothing.
_NOTHING = {
    "not_before": "at once",
    "expires_at": "never",
    "allowed_networks": "any",
    "max_key_lifetime": "ever",
    "scopes": "anything",  # of an organization
}


def audit(
    ctx: typer.Context,
    organization: Annotated[
        str | None,
        typer.Option("--org", metavar="ORG", help="Id or slug; all organizations by default."),
    ] = None,
    subject: Annotated[
        str | None,
        typer.Option(
            "--subject",
            "--key",
            metavar="ID",
            help="The id of the only key or organization that is of interest.",
        ),
    ] = None,
    limit: Limit = None,
    after: After = None,
    everything: All = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show who changed what, newest first."""
    common = Common.of(ctx, url, as_json)
    only = None if subject is None else key_id(subject)
    now = datetime.now(UTC)
    with common.guard() as guard:
        page = pages.read(
            lambda after, limit: guard.audit.list(
                organization=organization, subject=only, after=after, limit=limit
            ),
            after=after,
            limit=limit,
            everything=everything,
        )
    pages.show(
        page,
        common.as_json,
        _document,
        lambda page: _table(page, now),
        "No such change is on record.",
    )


def _document(entry: AuditEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "at": instant(entry.at),
        "actor": entry.actor,
        "action": entry.action.value,
        "subject": entry.subject,
        "organization": entry.organization,
        "before": None if entry.before is None else dict(entry.before),
        "after": dict(entry.after),
    }


def _table(page: Page[AuditEntry], now: datetime) -> str:
    rows = [
        (
            relative(entry.at, now),
            entry.actor,
            entry.action.value.partition(".")[2],
            entry.subject,
            in_words(entry),
        )
        for entry in page
    ]
    headings = ("When", "Who", "What", "Which", "Change")
    return table(headings, rows, flexible={"When": 8, "Who": 10, "Change": 20})


def in_words(entry: AuditEntry) -> str:
    """Return what an entry says has changed."""
    after = entry.after
    match entry.action:
        case Action.KEY_ROTATED:
            if after.get("revoked_at") is not None:
                return f"successor {after['successor']}, revoked at once"
            end = _spelled("grace_ends_at", after.get("grace_ends_at"))
            return f"successor {after['successor']}, grace ends {end}"
        case Action.KEY_REVOKED:
            words = str(after.get("revoked_reason") or "unspecified")
            note = after.get("revoked_note")
            return words if note is None else f"{words}: {note}"
        case _:
            return "; ".join(_differences(entry.before, after))


def _differences(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for name, value in sorted(after.items(), key=_importance):
        if name in _SAID_ELSEWHERE or (before is None and not value):
            continue
        if before is None and name == "name" and value == after.get("slug"):
            continue
        new = _spelled(name, value)
        word = _WORDS.get(name, name.replace("_", " "))
        if before is None:
            found.append(new if name == "name" else f"{word} {new}")
        else:
            found.append(f"{word} {new}, was {_spelled(name, before.get(name))}")
    return found


def _importance(field: tuple[str, Any]) -> tuple[int, str]:
    name, _ = field
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST)), name


def _spelled(name: str, value: Any) -> str:
    if value is None:
        return _NOTHING.get(name, "none")
    if name == "limits":
        return ", ".join(f"{one['name']} {one['rate']}" for one in value) or "none"
    if name == "max_key_lifetime":
        return lifetime(timedelta(seconds=value))
    if name == "metadata":
        return ", ".join(f"{key}={one}" for key, one in value.items()) or "none"
    if name in ("scopes", "allowed_networks"):
        return ", ".join(map(str, value)) or ("any" if name == "allowed_networks" else "none")
    if name.endswith(("_at", "_before")):
        return f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return str(value)
