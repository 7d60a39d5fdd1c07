"""Pages on one key: all about it, and editing, rotating and revoking it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from keyguard.admin.console.charts import recent
from keyguard.admin.console.forms import Choice, Choices, KeyForm, changed_limits, limits_text
from keyguard.admin.console.keys import grants_by_form, revocation_fields, revoke
from keyguard.admin.console.page import OUTDATED, REFUSALS, Pages, View, sent, version_of
from keyguard.admin.console.tokens import CLEARED, show_token
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.admin.step_up import rotates_admin
from keyguard.core.access.answers import Response
from keyguard.core.keys.records import Key, KeyStatus
from keyguard.exceptions import InvalidValueError, OutdatedError

_GRACES = (
    ("0", "not at all"),
    ("3600", "1 hour"),
    ("86400", "1 day"),
    ("604800", "7 days"),
    ("2592000", "30 days"),
)

PAGES = Pages()


class Event(NamedTuple):
    """Something in the life of a family.

    Args:
        at: When.
        text: What happened, or will happen.
        key: The id of the key.
    """

    at: datetime
    text: str
    key: str


async def _view(context: Context) -> tuple[View, Key]:
    key = await context.key()
    return View(context, await context.management.organizations.get(key.organization)), key


def rights_on(view: View, key: Key) -> frozenset[str]:
    """Return what the caller may do with a key, as the templates name it."""
    can = set[str]()
    working = key.status(view.now) in (KeyStatus.ACTIVE, KeyStatus.NOT_YET_VALID)
    own = Right.OWN_KEYS in view.rights and view.context.holds(key)
    if key.revoked_at is None and (Right.WRITE_KEYS in view.rights or own):
        can.add("revoke")
        if working and key.successor is None:
            can.add("rotate")
        if Right.WRITE_KEYS in view.rights:
            can.add("edit")
    return frozenset(can)


@PAGES.add("GET", "/keys/{key}", Right.READ_KEYS, own=True)
async def show_key(context: Context) -> Answer:
    """Show a key."""
    view, key = await _view(context)
    family = await context.management.keys.list(
        organization=key.organization, family=key.family, limit=100
    )
    found = None
    if Right.READ_USAGE in view.rights or view.context.holds(key):
        found = await recent(view, key=key.id)
    outcomes = Counter[str]()
    for item in found[1] if found else ():
        outcomes[item.group] += item.n
    entries, following = None, None
    if Right.READ_AUDIT in view.rights:
        trail = await context.management.audit.list(
            organization=key.organization,
            subject=key.id,
            after=view.query("after") or None,
            limit=20,
        )
        entries, following = trail.items, view.next_page(trail.next)
    return view.show(
        "key.html",
        key.name,
        section="Keys" if Right.READ_KEYS in view.rights else "My keys",
        can=rights_on(view, key),
        key=key,
        timeline=timeline(family),
        chart=found and found[0],
        outcomes=outcomes.most_common(),
        limits=await context.management.keys.limits(key.id),
        check=await _tried(view, key),
        entries=entries,
        next=following,
    )


async def _tried(view: View, key: Key) -> dict[str, object] | None:
    """Return what the rules say of the request in the query; None for who may not ask."""
    if Right.CHECK not in view.rights:
        return None
    method, path = view.query("method") or "GET", view.query("path")
    tried, problem = None, ""
    if path and not path.startswith("/"):
        problem = "A path begins with a slash, such as /v1/models."
    elif path:
        context = view.context
        rule = context.guard.settings.rule_book().find(path, method)
        tried = await context.management.keys.check_key(key.id, rule)
    return {"method": method, "path": path, "tried": tried, "problem": problem}


def timeline(family: Iterable[Key]) -> list[Event]:
    """Return what happened to the keys of a family, and what will happen, by time."""
    events: list[Event] = []
    for key in family:
        told = [(key.created_at, "Issued")]
        if key.revoked_at is not None:
            told.append((key.revoked_at, f"Revoked: {key.revoked_reason}"))
        elif key.grace_ends_at is not None:
            told.append((key.grace_ends_at, "Rotated: the old token ends"))
        elif key.expires_at is not None:
            told.append((key.expires_at, "Expires"))
        events += [Event(at, text, key.id) for at, text in told]
    return sorted(events)


async def _edits_admin(context: Context) -> bool:
    key = await context.key()
    return "preview" not in await sent(context) and await grants_by_form(context, key.scopes)


@PAGES.form("/keys/{key}/edit", Right.WRITE_KEYS, reaches_far=_edits_admin)
async def edit_key(context: Context) -> Answer:
    """Show the form of a key's values, and change the key."""
    view, key = await _view(context)
    fields = await sent(context)
    form, problem, status = _filled(view, key), "", None
    if fields:
        form = KeyForm(expires="", owner="", limits="")
        form.fill(fields)
    if fields and "preview" not in fields:
        try:
            await context.management.keys.update(
                key.id,
                name=form.name,
                scopes=form.scopes,
                expires_at=_end(form.expires or "", key, ZoneInfo(view.zone)),
                allowed_networks=form.allowed_networks,
                owner=form.owner or None,
                limits=changed_limits(form.limits or "", key.limits, "key"),
                version=version_of(form.version),
                actor=context.caller,
            )
            return view.go(f"/keys/{key.id}", "saved")
        except OutdatedError:
            view, key = await _view(context)
            form, problem, status = _filled(view, key), OUTDATED, 412
        except REFUSALS as refused:
            problem = str(refused)
    offered = Choices.of(context.guard, view.owner)
    known = {scope for scope, _, _ in offered.choices}
    more: list[Choice] = [(scope, "", []) for scope in sorted(key.scopes - known)] if known else []
    return view.show(
        "key_form.html",
        f"Edit {key.name}",
        section="Keys",
        problem=problem,
        status=status,
        action=f"/keys/{key.id}/edit",
        submit="Save",
        back=f"/keys/{key.id}",
        **offered.of_form(form, more),
    )


def _filled(view: View, key: Key) -> KeyForm:
    """Return the form with the values that a key has."""
    zone = ZoneInfo(view.zone)
    return KeyForm(
        name=key.name,
        scopes=key.scopes,
        expires=f"{key.expires_at.astimezone(zone):%Y-%m-%d}" if key.expires_at else "",
        networks=" ".join(key.allowed_networks),
        owner=key.owner or "",
        limits=limits_text(key.limits),
        version=str(key.version),
    )


def _end(text: str, key: Key, zone: ZoneInfo) -> datetime | None:
    """Return the end of a key by the date in a form, which stays exact if the date is the same."""
    if not text:
        return None
    if key.expires_at is not None and text == f"{key.expires_at.astimezone(zone):%Y-%m-%d}":
        return key.expires_at
    try:
        return datetime.combine(datetime.fromisoformat(text).date(), time(), zone).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidValueError("the end takes a date such as 2030-01-31") from None


@PAGES.form("/keys/{key}/rotate", Right.WRITE_KEYS, own=True, reaches_far=rotates_admin)
async def rotate_key(context: Context) -> Answer:
    """Ask how long the old token shall go on working, rotate, and show the new token once."""
    view, key = await _view(context)
    fields, problem = await sent(context), ""
    if fields:
        try:
            grace = fields.get("grace", "")
            if grace not in dict(_GRACES):
                raise InvalidValueError("choose how long the old token goes on working")
            rotated = await context.management.keys.rotate(
                key.id,
                grace=timedelta(seconds=int(grace)),
                idempotency_key=f"console {fields.get('once', '')[:64]}",
                actor=context.caller,
            )
            return show_token(view, rotated.token, rotated.key)
        except REFUSALS as refused:
            problem = str(refused)
    return view.ask(
        "Rotate this key?",
        f"/keys/{key.id}/rotate",
        "Rotate the key",
        section="Keys",
        problem=problem,
        hidden=[("once", KeyForm().once)],
        lead=f"{key.name} gets a successor with the same rights and a new token, shown once.",
        fields=[
            {
                "name": "grace",
                "label": "How long the old token goes on working",
                "value": "86400",
                "choices": _GRACES,
                "kind": "select",
            }
        ],
        back=f"/keys/{key.id}",
    )


@PAGES.form("/keys/{key}/revoke", Right.WRITE_KEYS, own=True)
async def revoke_key(context: Context) -> Answer:
    """Ask why a key shall be revoked, and revoke it."""
    view, key = await _view(context)
    fields, problem = await sent(context), ""
    if fields:
        try:
            await revoke(context, key, fields)
            return view.go(f"/keys/{key.id}", "revoked")
        except REFUSALS as refused:
            problem = str(refused)
    return view.ask(
        "Revoke this key?",
        f"/keys/{key.id}/revoke",
        "Revoke the key",
        section="Keys",
        problem=problem,
        lead=f"Requests with {key.name} are refused from now on, everywhere. This can't be undone.",
        fields=revocation_fields(),
        harmful=True,
        back=f"/keys/{key.id}",
    )


@PAGES.add("POST", "/keys/{key}/stored", Right.READ_KEYS, own=True)
async def confirm_stored(context: Context) -> Answer:
    """Leave the page of a token, and have the browser forget it."""
    view, key = await _view(context)
    await sent(context)
    answer = view.go(f"/keys/{key.id}", "stored")
    return Response(answer.status, (*answer.headers, CLEARED), answer.body)
