"""The form of a key: what it offers, what was sent, and what the guard takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from secrets import token_hex
from typing import Any, TypeAlias

from werkzeug.datastructures import MultiDict

from keyguard.core.identity.scopes import ScopeCatalogue, ScopeGrant
from keyguard.core.keys.records import Organization
from keyguard.core.limits.limit import Limit, parse_limit
from keyguard.core.values import UNCHANGED, Unchanged
from keyguard.exceptions import InvalidValueError
from keyguard.guard import AsyncKeyguard, Keyguard

Choice: TypeAlias = tuple[str, str, list[str]]
"""A scope, its description, and what it implies."""

_LIFETIMES = (("1", "1 day"), ("7", "7 days"), ("30", "30 days"), ("90", "90 days"))
_LONG = (("180", "180 days"), ("365", "365 days"))


@dataclass(slots=True)
class KeyForm:
    """The fields of a key's form, as texts. A field that is None is not shown.

    Args:
        name: The name.
        scopes: The scopes that are chosen.
        lifetime: The lifetime in days; "" for the longest that the organization allows.
        expires: The date at which it ends instead.
        networks: The networks, with spaces or commas between them.
        owner: Who holds it.
        limits: The limits, with semicolons between them.
        reason: Why somebody asks for it.
        note: What an approver notes.
        once: A mark by which a second sending of the same form is recognized.
        version: The version of the key that it was made from; "" for a new key.
    """

    name: str = ""
    scopes: frozenset[str] = frozenset()
    lifetime: str = "90"
    expires: str | None = None
    networks: str = ""
    owner: str | None = None
    limits: str | None = None
    reason: str | None = None
    note: str = ""
    once: str = field(default_factory=lambda: token_hex(16))
    version: str = ""

    def fill(self, fields: MultiDict[str, str]) -> None:
        """Take over what was sent."""
        self.scopes = frozenset(" ".join(fields.getlist("scope")).split())
        for name in ("name", "lifetime", "networks", "note", "once", "version"):
            setattr(self, name, fields.get(name, getattr(self, name)).strip())
        for name in ("expires", "owner", "limits", "reason"):
            if getattr(self, name) is not None:
                setattr(self, name, fields.get(name, "").strip())

    @property
    def expires_in(self) -> timedelta | None:
        """How long the key works; None for as long as its organization allows."""
        if not self.lifetime:
            return None
        if not self.lifetime.isdecimal() or len(self.lifetime) > 5:
            raise InvalidValueError("choose how long the key works")
        return timedelta(days=int(self.lifetime))

    @property
    def allowed_networks(self) -> tuple[str, ...]:
        """The networks."""
        return tuple(self.networks.replace(",", " ").split())


def limits_of(text: str, per: str) -> tuple[Limit, ...]:
    """Return the limits that a field holds, with semicolons between them."""
    return tuple(parse_limit(part.strip(), per) for part in text.split(";") if part.strip())


def limits_text(limits: Iterable[Limit]) -> str:
    """Return limits as a field takes them."""
    return "; ".join(f"{limit.name}={', '.join(map(str, limit.rates))}" for limit in limits)


def days_text(length: timedelta | None) -> str:
    """Return a length of time as a field takes it, in days."""
    return "" if length is None else f"{length / timedelta(days=1):g}"


def changed_limits(text: str, limits: tuple[Limit, ...], per: str) -> tuple[Limit, ...] | Unchanged:
    """Return the limits that a field holds; each keeps what the field does not tell of it."""
    old = {limit.name: limit for limit in limits}
    new = tuple(_merged(limit, old.get(limit.name)) for limit in limits_of(text, per))
    return UNCHANGED if new == limits else new


def _merged(new: Limit, old: Limit | None) -> Limit:
    if old is None:
        return new
    return old if new.rates == old.rates else replace(old, rate=new.rate)


@dataclass(frozen=True, slots=True)
class Choices:
    """What a form offers in an organization.

    Args:
        catalogue: The scopes that the service knows, or None.
        choices: The scopes that a key may be granted, with their description and what they imply.
        lifetimes: The lifetimes, in days, with their names.
        hint: What bounds the lifetime.
    """

    catalogue: ScopeCatalogue | None
    choices: list[Choice]
    lifetimes: list[tuple[str, str]]
    hint: str

    @classmethod
    def of(cls, guard: Keyguard | AsyncKeyguard, organization: Organization) -> Choices:
        """Return what an organization's keys may be granted."""
        catalogue = guard.policy.catalogue
        ceiling = organization.scopes
        choices: list[Choice] = []
        if catalogue is not None:
            may = None
            if ceiling is not None:
                may = ScopeGrant(ceiling, catalogue.implied_by(ceiling))
            for scope in catalogue:
                implied = sorted(catalogue.implied_by(frozenset({scope})) - {scope})
                if may is None or scope in may:
                    choices.append((scope, catalogue.describe(scope), implied))
        longest = organization.max_key_lifetime
        lifetimes = [
            (days, name)
            for days, name in (*_LIFETIMES, *_LONG)
            if longest is None or timedelta(days=int(days)) <= longest
        ]
        if longest is None:
            return cls(catalogue, choices, [*lifetimes, ("", "no end")], "")
        hint = "This organization limits how long a key works."
        return cls(catalogue, choices, [*lifetimes, ("", "as long as allowed")], hint)

    def default(self) -> str:
        """Return the lifetime that is chosen at first."""
        days = [days for days, _ in self.lifetimes if days]
        return "90" if "90" in days else (days or [""])[-1]

    def of_form(self, form: KeyForm, more: Sequence[Choice] = ()) -> dict[str, Any]:
        """Return what the template of a key's form shows.

        Args:
            form: The form.
            more: Scopes that it has besides those that are offered.
        """
        return {
            "form": form,
            "choices": [*self.choices, *more],
            "lifetimes": self.lifetimes,
            "lifetime_hint": self.hint,
            "preview": self.preview(form.scopes) if form.scopes else None,
        }

    def preview(self, scopes: frozenset[str]) -> dict[str, list[tuple[str, str]]]:
        """Return which scopes of the catalogue a key with some scopes may use, and which not."""
        if self.catalogue is None:
            return {"may": [(scope, "") for scope in sorted(scopes)], "may_not": []}
        grant = ScopeGrant(scopes, self.catalogue.implied_by(scopes))
        told = [(scope, self.catalogue.describe(scope)) for scope in self.catalogue]
        return {
            "may": [item for item in told if item[0] in grant],
            "may_not": [item for item in told if item[0] not in grant],
        }
