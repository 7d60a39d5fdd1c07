"""Pages on the settings of an organization: its facts and ceilings, and disabling it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from werkzeug.datastructures import MultiDict

from keyguard.admin.console.forms import changed_limits, days_text, limits_text
from keyguard.admin.console.page import OUTDATED, REFUSALS, Pages, sent, version_of, view_of
from keyguard.admin.context import Context
from keyguard.admin.exchange import Answer
from keyguard.admin.rights import Right
from keyguard.admin.step_up import disables
from keyguard.core.keys.records import Organization
from keyguard.core.limits.limit import Limit
from keyguard.core.values import UNCHANGED, Unchanged
from keyguard.exceptions import InvalidValueError, OutdatedError, RefusedError

T = TypeVar("T")

_ONE = "/organizations/{organization}"
_FIELDS = {
    "name": ("Name", ""),
    "time_zone": (
        "Time zone",
        "Its usage is kept by the days of this zone, such as Europe/Berlin.",
    ),
    "limits": ("Limits", "Such as burst=100/minute; daily=5000/day."),
    "scopes": (
        "Scopes",
        "The scopes that its keys may have, separated by spaces. Empty for all, - for none.",
    ),
    "max_days": ("Longest lifetime of a key, in days", "Empty for no maximum."),
    "max_keys": ("Number of keys", "Empty for no maximum."),
    "plan": ("Plan", "The name of a plan in the settings of the service. Empty for none."),
}
"""The label of each field of the form, and its hint."""

PAGES = Pages()


@PAGES.add("GET", f"{_ONE}/settings", Right.READ_ORGANIZATION)
async def show_settings(context: Context) -> Answer:
    """Show the facts and ceilings of an organization."""
    view = await view_of(context)
    can = set[str]()
    if Right.CHANGE_ORGANIZATION in view.rights:
        can = {"edit", "enable" if view.owner.disabled_at else "disable"}
    return view.show("organization.html", "Organization", section="Organization", can=can)


def _facts(organization: Organization) -> MultiDict[str, str]:
    """Return the fields of the form with the values that an organization has."""
    return MultiDict(
        {
            "name": organization.name,
            "time_zone": organization.time_zone,
            "limits": limits_text(organization.limits),
            "scopes": _ceiling_text(organization.scopes),
            "max_days": days_text(organization.max_key_lifetime),
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


@PAGES.form(
    f"{_ONE}/edit",
    Right.CHANGE_ORGANIZATION,
    target=f"{_ONE}/settings",
    reaches_far=_changes_bounds,
)
async def change_settings(context: Context) -> Answer:
    """Show the form of an organization's settings, and change them."""
    view = await view_of(context)
    fields, problem, status = await sent(context), "", None
    if fields:
        try:
            limits, scopes, lifetime, number, plan = _bounds(fields, view.owner)
            await context.management.organizations.update(
                view.owner.id,
                name=fields.get("name", ""),
                time_zone=fields.get("time_zone", ""),
                limits=limits,
                scopes=scopes,
                max_key_lifetime=lifetime,
                max_keys=number,
                plan=plan,
                version=version_of(fields.get("version", "")),
                actor=context.caller,
            )
            return view.go(f"{view.home}/settings", "saved")
        except OutdatedError:
            view = await view_of(context)
            fields, problem, status = MultiDict[str, str](), OUTDATED, 412
        except REFUSALS as refused:
            problem = str(refused)
    shown = fields or _facts(view.owner)
    return view.ask(
        "Edit the organization",
        f"{view.home}/settings",
        "Save",
        section="Organization",
        problem=problem,
        status=status,
        hidden=[("version", shown.get("version", ""))],
        fields=[
            {
                "name": name,
                "label": label,
                "value": shown.get(name, ""),
                "hint": hint,
                "required": name in ("name", "time_zone"),
                "most": 2000,
            }
            for name, (label, hint) in _FIELDS.items()
        ],
        back=f"{view.home}/settings",
    )


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


def _lifetime(fields: MultiDict[str, str], old: timedelta | None) -> timedelta | None:
    """Return the longest lifetime that a field holds, which tells the old one with some digits."""
    text = fields.get("max_days", "").strip()
    if text == days_text(old):
        return old
    try:
        return timedelta(days=float(text)) if text else None
    except (ValueError, OverflowError):
        raise InvalidValueError("the longest lifetime takes a number of days") from None


@PAGES.form(f"{_ONE}/disable", Right.CHANGE_ORGANIZATION, reaches_far=disables)
async def disable_organization(context: Context) -> Answer:
    """Ask whether an organization shall be disabled, and disable it."""
    lead = "None of its keys works until somebody enables it again. No key is lost."
    return await _switch(context, "disable", lead, context.management.organizations.disable)


@PAGES.form(f"{_ONE}/enable", Right.CHANGE_ORGANIZATION)
async def enable_organization(context: Context) -> Answer:
    """Ask whether an organization shall be enabled, and enable it."""
    lead = "Its keys work again, except those that have ended."
    return await _switch(context, "enable", lead, context.management.organizations.enable)


async def _switch(
    context: Context, verb: str, lead: str, switch: Callable[..., Awaitable[object]]
) -> Answer:
    view, problem = await view_of(context), ""
    if await sent(context):
        try:
            await switch(view.owner.id, actor=context.caller)
            return view.go(f"{view.home}/settings", f"{verb}d")
        except RefusedError as refused:
            problem = str(refused)
    return view.ask(
        f"{verb.capitalize()} this organization?",
        f"{view.home}/{verb}",
        verb.capitalize(),
        section="Organization",
        problem=problem,
        lead=lead,
        harmful=verb == "disable",
        back=f"{view.home}/settings",
    )
