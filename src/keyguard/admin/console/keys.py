"""Pages on the keys of an organization: the list, issuing, revoking several; and one's own keys."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from werkzeug.datastructures import MultiDict

from keyguard.admin.console.charts import Asked
from keyguard.admin.console.forms import Choices, KeyForm, limits_of
from keyguard.admin.console.page import REFUSALS, Pages, View, sent, view_of
from keyguard.admin.console.tokens import made_once, show_token
from keyguard.admin.context import Context, unknown
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.admin.step_up import grants_admin
from keyguard.core.keys.records import Key, KeyStatus, RevocationReason
from keyguard.core.tokens.format import KEY_ID
from keyguard.core.usage.periods import Step
from keyguard.exceptions import ConfigurationError, NotFoundError

_ROWS = 20
_LOOKED_THROUGH = 5
_REVOKED_AT_ONCE = 100

_ONE = "/organizations/{organization}"
PAGES = Pages()


@PAGES.add("GET", f"{_ONE}/keys", Right.READ_KEYS)
async def list_keys(context: Context) -> Answer:
    """List the keys of an organization."""
    view = await view_of(context)
    chosen = {name: view.query(name).strip() for name in ("q", "status", "owner")}
    found: list[Key] = []
    damaged: list[str] = []
    after: str | None = view.query("after") or None
    if KEY_ID.match(chosen["q"]):  # a whole id: no list is looked through
        with suppress(NotFoundError):
            await context.management.keys.get(chosen["q"], organization=view.owner.id)
            return view.go(f"/keys/{chosen['q']}")
    for _ in range(_LOOKED_THROUGH):
        listed = await context.management.keys.list(
            organization=view.owner.id,
            owner=chosen["owner"] or None,
            search=chosen["q"] or None,
            after=after,
            limit=_ROWS,
        )
        damaged += listed.damaged
        found += [key for key in listed if chosen["status"] in ("", key.status(view.now))]
        after = listed.next
        if after is None or len(found) >= _ROWS:
            break
    return view.show(
        "keys.html",
        "Keys",
        section="Keys",
        can=view.key_rights,
        rows=await with_use(view, found),
        next=view.next_page(after),
        filter=chosen,
        filtered=any(chosen.values()),
        statuses=[status.value for status in KeyStatus],
        damaged=damaged,
    )


async def with_use(view: View, keys: Sequence[Key]) -> list[tuple[Key, list[int] | None]]:
    """Return keys with how often each was used on each of the last 30 days; None if not counted."""
    usage = view.context.management.usage
    asked = Asked.until_now(view, step=Step.DAY, group_by="key")
    try:
        report = await asked.report(usage)
    except ConfigurationError:
        return [(key, None) for key in keys]
    if report.next is None:
        return [
            (key, asked.chart(item for item in report.items if item.group == key.id).counts)
            for key in keys
        ]
    rows: list[tuple[Key, list[int] | None]] = []
    for key in keys:  # so many keys are in use that asking for each is less
        own = replace(asked, key=key.id, group_by=None)
        rows.append((key, own.chart((await own.report(usage)).items).counts))
    return rows


@PAGES.add("GET", f"{_ONE}/mine", Right.OWN_KEYS)
async def list_own_keys(context: Context) -> Answer:
    """List the caller's own keys and requests in an organization."""
    view = await view_of(context)
    if context.person is None:
        raise unknown()
    listed = await context.management.keys.list(
        organization=view.owner.id,
        owner=context.person.id,
        after=view.query("after") or None,
        limit=_ROWS,
    )
    asked = await context.management.requests.list(
        organization=view.owner.id, requester=context.person.id, limit=_ROWS
    )
    return view.show(
        "mine.html",
        "My keys",
        section="My keys",
        can=view.key_rights,
        rows=await with_use(view, listed.items),
        next=view.next_page(listed.next),
        requests=asked.items,
    )


async def _issues_admin(context: Context) -> bool:
    await context.organization()
    return "preview" not in await sent(context) and await grants_by_form(context)


@PAGES.form(f"{_ONE}/keys/new", Right.WRITE_KEYS, target=f"{_ONE}/keys", reaches_far=_issues_admin)
async def issue_key(context: Context) -> Answer:
    """Show the form of a new key, issue the key, and show its token once."""
    view = await view_of(context)
    fields, problem = await sent(context), ""
    offered = Choices.of(context.guard, view.owner)
    form = KeyForm(lifetime=offered.default(), owner="", limits="")
    form.fill(fields)
    if fields and "preview" not in fields:
        try:
            issued = await made_once(
                view,
                form.once,
                partial(
                    context.management.keys.issue,
                    organization=view.owner.id,
                    name=form.name,
                    scopes=form.scopes,
                    expires_in=form.expires_in,
                    allowed_networks=form.allowed_networks,
                    limits=limits_of(form.limits or "", "key"),
                    owner=form.owner or None,
                    actor=context.caller,
                ),
            )
            if issued is None:
                return show_token(view, None, back=f"{view.home}/keys", back_text="Go to the keys")
            return show_token(view, issued.token, issued.key)
        except REFUSALS as refused:
            problem = str(refused)
    return view.show(
        "key_form.html",
        "Issue a key",
        section="Keys",
        problem=problem,
        action=f"{view.home}/keys",
        submit="Issue the key",
        back=f"{view.home}/keys",
        **offered.of_form(form),
    )


async def grants_by_form(context: Context, more: frozenset[str] = frozenset()) -> bool:
    """Return whether a form that was sent grants ``admin``.

    Args:
        context: The call, of somebody who may send the form.
        more: What the key has already.
    """
    form = KeyForm()
    form.fill(await sent(context))
    return grants_admin(context, form.scopes | more)


@PAGES.add("POST", f"{_ONE}/keys/revoke", Right.WRITE_KEYS)
async def revoke_keys(context: Context) -> Answer:
    """Ask whether several keys shall be revoked, and revoke them."""
    view = await view_of(context)
    fields, problem = await sent(context), ""
    keys: list[Key] = []
    for key_id in dict.fromkeys(fields.getlist("key")[:_REVOKED_AT_ONCE]):
        with suppress(NotFoundError):
            get = context.management.keys.get
            keys.append(await get(key_id, organization=view.owner.id))
    if not keys:
        return view.go(f"{view.home}/keys")
    if "reason" in fields:
        try:
            for key in keys:
                await revoke(context, key, fields)
            return view.go(f"{view.home}/keys", "revoked")
        except REFUSALS as refused:
            problem = f"Not all keys were revoked: {refused}"
    return view.ask(
        f"Revoke {len(keys)} keys?" if len(keys) > 1 else "Revoke this key?",
        f"{view.home}/keys/revoke",
        "Revoke",
        section="Keys",
        problem=problem,
        hidden=[("key", key.id) for key in keys],
        lead="Requests with them are refused from now on, everywhere. This can't be undone.",
        listed=[f"{key.name} ({key.id})" for key in keys],
        fields=revocation_fields(),
        harmful=True,
        back=f"{view.home}/keys",
    )


async def revoke(context: Context, key: Key, fields: MultiDict[str, str]) -> None:
    """Revoke a key, for the reason that a form gives.

    Raises:
        InvalidValueError: There is no such reason.
        RefusedError: The caller may not revoke the key.
    """
    await context.management.keys.revoke(
        key.id,
        reason=fields.get("reason", "unspecified"),
        note=fields.get("note", "").strip() or None,
        actor=context.caller,
    )


def revocation_fields() -> list[dict[str, object]]:
    """Return the fields that a revocation asks for."""
    reasons = [(reason.value, reason.value.capitalize()) for reason in RevocationReason]
    return [
        {"name": "reason", "label": "Reason", "choices": reasons, "kind": "select"},
        {
            "name": "note",
            "label": "Note",
            "hint": "Why, in your own words. It is kept with the key.",
        },
    ]
