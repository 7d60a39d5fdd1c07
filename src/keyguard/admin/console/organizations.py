"""Pages on organizations: which there are, what goes on in one, its audit trail and settings."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from werkzeug.datastructures import MultiDict

from keyguard.admin.console.charts import recent
from keyguard.admin.console.forms import changed_limits, limits_text
from keyguard.admin.console.page import (
    OUTDATED,
    View,
    organizations_of,
    pages,
    sent,
    version_of,
)
from keyguard.admin.context import Context
from keyguard.admin.endpoints import StepUp
from keyguard.admin.exchange import Answer, settled
from keyguard.admin.rights import Right
from keyguard.admin.step_up import disables
from keyguard.core.keys.records import Key, KeyStatus, Organization
from keyguard.core.keys.requests import KeyRequest, RequestStatus
from keyguard.core.keys.values import UNCHANGED, Unchanged
from keyguard.core.limits.limit import Limit
from keyguard.core.usage.hints import Hint
from keyguard.core.usage.periods import Step
from keyguard.exceptions import (
    ConfigurationError,
    InvalidValueError,
    NotFoundError,
    OutdatedError,
    RefusedError,
)

T = TypeVar("T")

_COUNTED = 1000
_SOON = timedelta(days=30)

_ONE = "/organizations/{organization}"
PAGES = pages()


@PAGES.add("GET", "/")
async def show_start(context: Context) -> Answer:
    """Lead to the only organization of the caller, or to the list."""
    names = organizations_of(context.known)
    view = View(context)
    if len(names) == 1:
        return view.go(f"/organizations/{names[0]}")
    return view.go("/organizations")


@PAGES.add("GET", "/organizations")
async def list_organizations(context: Context) -> Answer:
    """List the organizations in which the caller has a role."""
    view = View(context)
    known = context.known
    items: list[tuple[Organization, str]] = []
    following = None
    person = context.person
    if person is not None and person.operator:
        listed = await settled(
            context.guard.organizations.list(after=view.query("after") or None, limit=50)
        )
        items = [(organization, "operator") for organization in listed]
        following = view.next_page(listed.next)
    else:
        for name in organizations_of(known):
            try:
                organization = await settled(context.guard.organizations.get(name))
            except NotFoundError:
                continue
            role = "" if person is None else person.roles[name]
            items.append((organization, role))
    can = {"create"} if person is not None and person.operator else frozenset[str]()
    return view.show("organizations.html", "Organizations", items=items, next=following, can=can)


@PAGES.add("GET", "/organizations/new", Right.OPERATE)
async def ask_for_organization(context: Context) -> Answer:
    """Show the form of a new organization."""
    return _creation(View(context), MultiDict())


@PAGES.add("POST", "/organizations", Right.OPERATE)
async def create_organization(context: Context) -> Answer:
    """Create an organization."""
    fields = await sent(context)
    try:
        created = await settled(
            context.guard.organizations.create(
                slug=fields.get("slug", ""), name=fields.get("name", ""), actor=context.actor
            )
        )
    except (InvalidValueError, RefusedError) as problem:
        return _creation(View(context), fields, str(problem))
    return View(context).go(f"/organizations/{created.slug}", "created")


def _creation(view: View, fields: MultiDict[str, str], problem: str = "") -> Answer:
    return view.ask(
        "New organization",
        "/organizations",
        "Create the organization",
        section="",
        problem=problem,
        lead="It owns keys. Its short name is in addresses and on the command line, and stays.",
        fields=[
            {"name": "name", "label": "Name", "value": fields.get("name", ""), "required": True},
            {
                "name": "slug",
                "label": "Short name",
                "value": fields.get("slug", ""),
                "hint": "Lower-case letters, digits and hyphens, such as acme-labs.",
                "required": True,
                "most": 63,
            },
        ],
        back="/organizations",
    )


@PAGES.add("GET", _ONE)
async def show_overview(context: Context) -> Answer:
    """Show what goes on in an organization."""
    organization = await context.organization()
    view = View(context, organization)
    if Right.READ_KEYS not in view.rights:
        return view.go(
            f"{view.home}/mine" if Right.OWN_KEYS in view.rights else f"{view.home}/usage"
        )
    guard, now, name = context.guard, view.now, organization.id
    listed = await settled(guard.keys.list(organization=name, limit=_COUNTED))
    counts = Counter(key.status(now) for key in listed)
    ending = await settled(guard.keys.list(organization=name, expiring_within=_SOON, limit=5))
    day = None
    hints: list[tuple[Hint, Key]] = []
    if Right.READ_USAGE in view.rights:
        found = await recent(
            guard,
            now,
            organization=name,
            zone=organization.time_zone,
            step=Step.HOUR,
            back=timedelta(hours=23),
        )
        day = None if found is None else found[0]
        with suppress(ConfigurationError):  # the guard counts no usage
            found_hints = await settled(guard.usage.hints(organization=name, limit=5))
            hints = [(hint, await settled(guard.keys.get(hint.key_id))) for hint in found_hints]
    waiting: tuple[KeyRequest, ...] | None = None
    if Right.READ_REQUESTS in view.rights:
        pending = await settled(
            guard.requests.list(organization=name, statuses=[RequestStatus.PENDING], limit=5)
        )
        waiting = pending.items
    return view.show(
        "overview.html",
        "Overview",
        section="Overview",
        can=key_rights(view),
        states=[(status.value, counts[status]) for status in KeyStatus if counts[status]],
        cut=listed.next is not None,
        day=day,
        hints=hints,
        ending=ending.items,
        waiting=waiting,
        parties=await view.keys_in(waiting or ()),
    )


def key_rights(view: View) -> frozenset[str]:
    """Return what the caller may do with an organization's keys, as the templates name it."""
    rights = view.rights
    can = {"issue", "revoke"} if Right.WRITE_KEYS in rights else set[str]()
    return frozenset(can | ({"ask"} if Right.ASK in rights else set()))


@PAGES.add("GET", f"{_ONE}/audit", Right.READ_AUDIT)
async def show_audit(context: Context) -> Answer:
    """Show the audit trail of an organization."""
    organization = await context.organization()
    view = View(context, organization)
    entries = await settled(
        context.guard.audit.list(
            organization=organization.id, after=view.query("after") or None, limit=50
        )
    )
    return view.show(
        "audit.html",
        "Audit",
        section="Audit",
        entries=entries.items,
        next=view.next_page(entries.next),
    )


@PAGES.add("GET", f"{_ONE}/limits", Right.READ_KEYS)
async def show_limits(context: Context) -> Answer:
    """Show the limits of an organization, and what is left to its keys."""
    organization = await context.organization()
    view = View(context, organization)
    listed = await settled(
        context.guard.keys.list(
            organization=organization.id, after=view.query("after") or None, limit=20
        )
    )
    rows = [
        (key, await settled(context.guard.keys.limits(key.id)))
        for key in listed
        if key.status(view.now) is KeyStatus.ACTIVE
    ]
    return view.show(
        "limits.html",
        "Limits",
        section="Limits",
        own=organization.limits,
        rows=rows,
        next=view.next_page(listed.next),
    )


@PAGES.add("GET", f"{_ONE}/settings", Right.READ_ORGANIZATION)
async def show_settings(context: Context) -> Answer:
    """Show the facts and ceilings of an organization."""
    view = View(context, await context.organization())
    can = set[str]()
    if Right.CHANGE_ORGANIZATION in view.rights:
        ended = view.organization is not None and view.organization.disabled_at
        can = {"edit", "enable" if ended else "disable"}
    return view.show("organization.html", "Organization", section="Organization", can=can)


@PAGES.add("GET", f"{_ONE}/edit", Right.CHANGE_ORGANIZATION)
async def ask_for_settings(context: Context) -> Answer:
    """Show the form of an organization's settings."""
    organization = await context.organization()
    return _settings(View(context, organization), _facts(organization))


def _facts(organization: Organization) -> MultiDict[str, str]:
    """Return the fields of the form with the values that an organization has."""
    return MultiDict(
        {
            "name": organization.name,
            "time_zone": organization.time_zone,
            "limits": limits_text(organization.limits),
            "scopes": _ceiling_text(organization.scopes),
            "max_days": _days_text(organization.max_key_lifetime),
            "max_keys": str(organization.max_keys or ""),
            "plan": organization.plan or "",
            "version": str(organization.version),
        }
    )


async def _changes_bounds(context: Context) -> bool:
    organization = await context.organization()
    try:
        bounds = _bounds(await sent(context), organization)
    except InvalidValueError:
        return False  # as it changes nothing
    return any(bound is not UNCHANGED for bound in bounds)


@PAGES.add(
    "POST",
    f"{_ONE}/settings",
    Right.CHANGE_ORGANIZATION,
    step_up=StepUp(reaches_far=_changes_bounds, form=f"{_ONE}/edit"),
)
async def change_settings(context: Context) -> Answer:
    """Change an organization's settings."""
    organization = await context.organization()
    view = View(context, organization)
    fields = await sent(context)
    try:
        bounds = _bounds(fields, organization)
        await settled(
            context.guard.organizations.update(
                organization.id,
                name=fields.get("name", ""),
                time_zone=fields.get("time_zone", ""),
                limits=bounds[0],
                scopes=bounds[1],
                max_key_lifetime=bounds[2],
                max_keys=bounds[3],
                plan=bounds[4],
                version=version_of(fields.get("version", "")),
                actor=context.actor,
            )
        )
    except OutdatedError:
        organization = await context.organization()
        return _settings(View(context, organization), _facts(organization), OUTDATED, 412)
    except (InvalidValueError, RefusedError) as problem:
        return _settings(view, fields, str(problem))
    return view.go(f"{view.home}/settings", "saved")


def _bounds(
    fields: MultiDict[str, str], organization: Organization
) -> tuple[
    tuple[Limit, ...] | Unchanged,
    frozenset[str] | Unchanged | None,
    timedelta | Unchanged | None,
    int | Unchanged | None,
    str | Unchanged | None,
]:
    """Return the limits, ceiling, lifetime, number and plan that a form changes.

    Raises:
        InvalidValueError: A field is malformed.
    """
    lifetime = organization.max_key_lifetime
    return (
        changed_limits(fields.get("limits", ""), organization.limits, "organization"),
        _changed(_ceiling(fields.get("scopes", "")), organization.scopes),
        _changed(_lifetime(fields, lifetime), lifetime),
        _changed(_number(fields, "max_keys"), organization.max_keys),
        _changed(fields.get("plan", "").strip() or None, organization.plan),
    )


def _changed(new: T, old: T) -> T | Unchanged:
    return UNCHANGED if new == old else new


def _ceiling_text(scopes: frozenset[str] | None) -> str:
    """Return a ceiling as the form takes it: "" is no ceiling, "-" one that admits no scope."""
    return "" if scopes is None else " ".join(sorted(scopes)) or "-"


def _ceiling(text: str) -> frozenset[str] | None:
    scopes = text.split()
    return None if not scopes else frozenset(() if scopes == ["-"] else scopes)


def _number(fields: MultiDict[str, str], name: str) -> int | None:
    text = fields.get(name, "").strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 10:
        raise InvalidValueError(f"{name.replace('_', ' ')} takes a whole number")
    return int(text)


def _days_text(lifetime: timedelta | None) -> str:
    return "" if lifetime is None else f"{lifetime / timedelta(days=1):g}"


def _lifetime(fields: MultiDict[str, str], old: timedelta | None) -> timedelta | None:
    """Return the longest lifetime that a field holds, which tells the old one with some digits."""
    text = fields.get("max_days", "").strip()
    if text == _days_text(old):
        return old
    try:
        return timedelta(days=float(text)) if text else None
    except (ValueError, OverflowError):
        raise InvalidValueError("the longest lifetime takes a number of days") from None


def _settings(
    view: View, fields: MultiDict[str, str], problem: str = "", status: int | None = None
) -> Answer:
    hints = {
        "name": ("Name", ""),
        "time_zone": ("Time zone", "Whose days its usage is kept in, such as Europe/Berlin."),
        "limits": ("Limits", "Such as burst=100/minute; daily=5000/day."),
        "scopes": (
            "Scopes",
            "The most that its keys may do, with spaces. Empty for all, - for none.",
        ),
        "max_days": ("Longest lifetime of a key, in days", "Empty for no bound."),
        "max_keys": ("Number of keys", "Empty for no bound."),
        "plan": ("Plan", "Its name in the settings. Empty for none."),
    }
    return view.ask(
        "Edit the organization",
        f"{view.home}/settings",
        "Save",
        section="Organization",
        problem=problem,
        status=status,
        hidden=[("version", fields.get("version", ""))],
        fields=[
            {
                "name": name,
                "label": label,
                "value": fields.get(name, ""),
                "hint": hint,
                "required": name in ("name", "time_zone"),
                "most": 2000,
            }
            for name, (label, hint) in hints.items()
        ],
        back=f"{view.home}/settings",
    )


@PAGES.add("GET", f"{_ONE}/disable", Right.CHANGE_ORGANIZATION)
async def ask_to_disable(context: Context) -> Answer:
    """Ask whether an organization shall be disabled."""
    return _switch(View(context, await context.organization()), "disable")


@PAGES.add("GET", f"{_ONE}/enable", Right.CHANGE_ORGANIZATION)
async def ask_to_enable(context: Context) -> Answer:
    """Ask whether an organization shall be enabled."""
    return _switch(View(context, await context.organization()), "enable")


def _switch(view: View, verb: str, problem: str = "") -> Answer:
    leads = {
        "disable": "None of its keys works until somebody enables it again. No key is lost.",
        "enable": "Its keys work again, as far as they have not ended.",
    }
    return view.ask(
        f"{verb.capitalize()} this organization?",
        f"{view.home}/{verb}",
        verb.capitalize(),
        section="Organization",
        problem=problem,
        lead=leads[verb],
        harmful=verb == "disable",
        back=f"{view.home}/settings",
    )


@PAGES.add(
    "POST",
    f"{_ONE}/disable",
    Right.CHANGE_ORGANIZATION,
    step_up=StepUp(reaches_far=disables, form=f"{_ONE}/disable"),
)
async def disable_organization(context: Context) -> Answer:
    """Disable an organization."""
    view = View(context, await context.organization())
    await sent(context)
    try:
        await settled(context.guard.organizations.disable(view.owner.id, actor=context.actor))
    except RefusedError as problem:
        return _switch(view, "disable", str(problem))
    return view.go(f"{view.home}/settings", "disabled")


@PAGES.add("POST", f"{_ONE}/enable", Right.CHANGE_ORGANIZATION)
async def enable_organization(context: Context) -> Answer:
    """Enable an organization."""
    view = View(context, await context.organization())
    await sent(context)
    try:
        await settled(context.guard.organizations.enable(view.owner.id, actor=context.actor))
    except RefusedError as problem:
        return _switch(view, "enable", str(problem))
    return view.go(f"{view.home}/settings", "enabled")
