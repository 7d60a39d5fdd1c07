"""``keyguard hints``: what to look at in the usage of organizations."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice

import typer

from keyguard.cli.options import LIST, Common, actor, argument_id, flag, option, with_options
from keyguard.cli.pages import each_page, show_list
from keyguard.cli.terminal import table
from keyguard.cli.wording import absolute
from keyguard.core.management.json_forms import hint_json, json_time
from keyguard.core.spans import parse_span
from keyguard.core.usage.hints import Hint
from keyguard.core.values import Page
from keyguard.exceptions import InvalidValueError
from keyguard.guard import Keyguard


@with_options(*LIST)
def hints(
    common: Common,
    organization: str | None = typer.Argument(
        None, metavar="ORG", help="The organization's id or slug; all by default."
    ),
    dismissed: str | None = option("ID", "Stop showing the hint with this id.", "--dismiss"),
    span: str | None = option("SPAN", "For how long, such as 90d; 30d by default.", "--for"),
    new: bool = flag("--new", "Show only what --new has not shown yet, for a job that runs daily."),
) -> None:
    """Show which keys to look at, and why.

    These are keys that end soon, that nobody uses, or that are used again after a long time, among
    others.
    """
    if dismissed is not None:
        _dismiss(common, organization, argument_id(dismissed), span)
        return
    if span is not None:
        raise InvalidValueError("--for goes with --dismiss")
    fetch = _new if new else _page
    with common.guard() as guard:
        show_list(
            common,
            partial(fetch, guard, organization),
            hint_json,
            _table,
            "There is nothing to look at.",
        )


def _dismiss(common: Common, organization: str | None, hint: str, span: str | None) -> None:
    now = datetime.now(UTC)
    until = None if span is None else now + parse_span("--for", span)
    _, _, about = hint.partition(":")
    key_id = about.partition(":")[0]
    if not key_id:
        raise InvalidValueError("--dismiss takes the id of a hint, as keyguard hints shows it")
    with common.guard() as guard:
        owner = organization or guard.keys.get(key_id).organization
        end = guard.usage.dismiss(organization=owner, hint=hint, until=until, actor=actor())
    text = f"Hint {hint} is not shown until {absolute(end, now)}.\n"
    common.show({"id": hint, "dismissed_until": json_time(end)}, text)


def _page(guard: Keyguard, organization: str | None, after: str | None, limit: int) -> Page[Hint]:
    if organization is not None:
        return guard.usage.hints(organization=organization, after=after, limit=limit)
    found = _everywhere(guard)
    if after is not None:
        for hint in found:
            if hint.id == after:
                break
    page = tuple(islice(found, limit))
    return Page(page, page[-1].id if next(found, None) else None)


def _new(
    guard: Keyguard,
    organization: str | None,
    after: str | None,  # noqa: ARG001 - what was shown is not new
    limit: int,  # noqa: ARG001 - what is not shown now would never be
) -> Page[Hint]:
    named = _organizations(guard) if organization is None else (organization,)
    return Page(tuple(hint for name in named for hint in guard.usage.new_hints(organization=name)))


def _everywhere(guard: Keyguard) -> Iterator[Hint]:
    """Give the hints of all organizations, one organization after the other."""
    for organization in _organizations(guard):
        for page in each_page(partial(guard.usage.hints, organization=organization)):
            yield from page


def _organizations(guard: Keyguard) -> Iterator[str]:
    for page in each_page(guard.organizations.list):
        yield from (organization.id for organization in page)


def _table(page: Page[Hint]) -> str:
    # Usage is counted by the day, so a hint on it holds since a day began.
    rows = [(hint.id, f"{hint.since.astimezone(UTC):%Y-%m-%d}", hint.text) for hint in page]
    return table(("Hint", "Since (UTC)", "What"), rows, flexible={"What": 20})
