"""``keyguard audit``: who changed what, and when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial

from keyguard.cli.options import LIST, Common, argument_id, option, with_options
from keyguard.cli.pages import show_list
from keyguard.cli.terminal import table
from keyguard.cli.wording import relative
from keyguard.core.keys.audit import Action, AuditEntry
from keyguard.core.management.change_words import in_words, word_of
from keyguard.core.management.json_forms import entry_json
from keyguard.core.values import Page

# Other columns show these fields, or people learn nothing from them.
_OTHER_COLUMNS = {"id", "organization", "family", "created_at", "disabled_at", "rotation_key"}
_FIRST = (
    "slug",
    "name",
    "scopes",
    "not_before",
    "expires_at",
    "max_key_lifetime",
    "max_keys",
    "limits",
)
_ORDER = {name: number for number, name in enumerate((*_FIRST, "allowed_networks"))}


@with_options(*LIST)
def audit(
    common: Common,
    organization: str | None = option(
        "ORG", "Only changes to this organization and its keys, by id or slug.", "--org"
    ),
    subject: str | None = option(
        "ID", "Only changes to the key or the organization with this id.", "--subject", "--key"
    ),
) -> None:
    """Show who changed what, newest first."""
    only = None if subject is None else argument_id(subject)
    with common.guard() as guard:
        show_list(
            common,
            partial(guard.audit.list, organization=organization, subject=only),
            entry_json,
            partial(_table, now=datetime.now(UTC)),
            "The audit trail has no such change.",
        )


def _table(page: Page[AuditEntry], now: datetime) -> str:
    rows = [
        (
            relative(entry.at, now),
            entry.actor,
            entry.action.value.partition(".")[2],
            entry.subject,
            _change(entry),
        )
        for entry in page
    ]
    headings = ("When", "Who", "What", "Which", "Change")
    return table(headings, rows, flexible={"When": 8, "Who": 10, "Change": 20})


def _change(entry: AuditEntry) -> str:
    """Return what has changed in words, or as it is stored if keyguard has no words for it."""
    try:
        return describe_change(entry)
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
        return json.dumps(entry.after)


def describe_change(entry: AuditEntry) -> str:
    """Return what an entry says has changed, in words."""
    after = entry.after
    match entry.action:
        case Action.KEY_ROTATED:
            if after.get("revoked_at") is not None:
                return f"successor {after['successor']}, revoked at once"
            end = in_words("grace_ends_at", after.get("grace_ends_at"))
            return f"successor {after['successor']}, grace ends {end}"
        case Action.KEY_REVOKED:
            words = str(after.get("revoked_reason") or "unspecified")
            note = after.get("revoked_note")
            return words if note is None else f"{words}: {note}"
        case Action.KEY_DELETED:
            return "; ".join(_differences(None, entry.before or {}))
        case Action.AUDIT_DELETED:
            return f"{after['entries']:,} from before {in_words('_at', after['before'])}"
        case _:
            return "; ".join(_differences(entry.before, after))


def _differences(before: Mapping[str, object] | None, after: Mapping[str, object]) -> Iterator[str]:
    for name, value in sorted(
        after.items(), key=lambda field: (_ORDER.get(field[0], len(_ORDER)), field[0])
    ):
        if name in _OTHER_COLUMNS or (before is None and not value):
            continue
        if before is None and (name, value) in (("name", after.get("slug")), ("time_zone", "UTC")):
            continue
        new = in_words(name, value)
        word = word_of(name)
        if before is not None:
            yield f"{word} {new}, was {in_words(name, before.get(name))}"
        else:
            yield new if name == "name" else f"{word} {new}"
