"""``keyguard purge``: delete keys that ended long ago, and old entries of the audit trail."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from keyguard.cli.options import STORE, Common, actor, flag, option, with_options
from keyguard.cli.output import complain, is_terminal, note
from keyguard.cli.wording import absolute
from keyguard.core.keys.results import DeletedAudit, DeletedKeys
from keyguard.core.management.json_forms import JsonObject, json_time
from keyguard.core.spans import parse_span
from keyguard.exceptions import InvalidValueError, RefusedError
from keyguard.guard import Keyguard
from keyguard.settings.config import Settings


class _Spans(NamedTuple):
    """How long keys and entries are kept before they are deleted; None for those that stay."""

    keys: timedelta | None
    audit: timedelta | None


class _Purged(NamedTuple):
    """What was deleted, or would be; None for kinds that stay."""

    keys: DeletedKeys | None
    audit: DeletedAudit | None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to delete."""
        return not any(part is not None and part.count for part in self)


@with_options(*STORE)
def purge(
    common: Common,
    keys: str | None = option(
        "SPAN", "Delete keys that ended longer ago than this, such as 400d; 13d at least."
    ),
    audit: str | None = option(
        "SPAN", "Delete audit entries that are older than this, such as 800d; 30d at least."
    ),
    dry_run: bool = flag("--dry-run", "Only count them."),
    is_sure: bool = flag("--yes", "Delete without asking. A job, which has no terminal, needs it."),
) -> None:
    """Delete keys that ended long ago and old audit entries, for good.

    Without --keys and --audit, the settings keep_ended_keys and keep_audit say which.
    """
    spans = _read_spans(common.settings(), keys, audit)
    if not (dry_run or is_sure or is_terminal(sys.stdin)):
        raise InvalidValueError(
            "what is deleted is gone for good: add --yes, or --dry-run to count it first"
        )
    with _as_written(keys, audit), common.guard() as guard:
        if not (dry_run or is_sure):
            _ask(_purge(guard, spans, dry_run=True))
        purged = _purge(guard, spans, dry_run=dry_run)
    for key_id in purged.keys.damaged if purged.keys else ():
        complain(f"{key_id} stays: its record is damaged and can't be read")
    verb = "would be deleted" if dry_run else "deleted"
    common.show(_form(purged, dry_run=dry_run), _lines(purged, verb))


def _read_spans(settings: Settings, keys: str | None, audit: str | None) -> _Spans:
    if keys is None and audit is None:
        settled = (settings.keep_ended_keys, settings.keep_audit)
        spans = _Spans(*(None if s is None else timedelta(seconds=s) for s in settled))
    else:
        spans = _Spans(
            None if keys is None else parse_span("--keys", keys),
            None if audit is None else parse_span("--audit", audit),
        )
    if not any(spans):
        raise InvalidValueError(
            "nothing says what to delete: pass --keys or --audit, such as --keys 400d, or set "
            "KEYGUARD_KEEP_ENDED_KEYS or KEYGUARD_KEEP_AUDIT"
        )
    return spans


def _purge(guard: Keyguard, spans: _Spans, *, dry_run: bool) -> _Purged:
    keys = audit = None
    if spans.keys is not None:
        keys = guard.keys.delete_ended(ended_for=spans.keys, dry_run=dry_run, actor=actor())
    if spans.audit is not None:
        audit = guard.audit.delete(older_than=spans.audit, dry_run=dry_run, actor=actor())
    return _Purged(keys, audit)


@contextmanager
def _as_written(keys: str | None, audit: str | None) -> Generator[None]:
    """Let an error about a span name its option, and show the span as the user wrote it."""
    try:
        yield
    except InvalidValueError as problem:
        words = str(problem)
        for argument, option, text in (
            ("ended_for", "--keys", keys),
            ("older_than", "--audit", audit),
        ):
            if text is not None and words.startswith(f"{argument} "):
                shown = words.replace(f", not {parse_span(option, text)}", f", not {text}")
                raise InvalidValueError(option + shown.removeprefix(argument)) from None
        raise


def _ask(counted: _Purged) -> None:
    """Ask whether to go on, if there is anything to delete.

    Raises:
        RefusedError: The user does not answer yes.
    """
    if counted.is_empty:
        return
    note(f"{_lines(counted, 'would be deleted')}Delete them for good? [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RefusedError("nothing was deleted")


def _lines(purged: _Purged, verb: str) -> str:
    text, now = "", datetime.now(UTC)
    if purged.keys is not None:
        before = absolute(purged.keys.before, now)
        text += f"{_number(purged.keys.count, 'key', 'keys')} {verb}, ended before {before}\n"
    if purged.audit is not None:
        what = _number(purged.audit.count, "audit entry", "audit entries")
        text += f"{what} {verb}, written before {absolute(purged.audit.before, now)}\n"
    return text


def _number(count: int, singular: str, plural: str) -> str:
    return f"{count:,} {singular if count == 1 else plural}"


def _form(purged: _Purged, *, dry_run: bool) -> JsonObject:
    keys, audit = purged
    return {
        "dry_run": dry_run,
        "keys": keys
        and {
            "count": keys.count,
            "before": json_time(keys.before),
            "damaged": [*keys.damaged],
        },
        "audit": audit and {"count": audit.count, "before": json_time(audit.before)},
    }
