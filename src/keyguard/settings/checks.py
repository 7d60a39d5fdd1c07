"""The checks of settings, and the form in which a guard keeps what was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import Field, fields
from typing import TYPE_CHECKING

from keyguard.core.limits.limit import Limit
from keyguard.core.values import check_plan_name
from keyguard.exceptions import ConfigurationError, InvalidValueError, shown
from keyguard.settings.hashing import read_peppers

if TYPE_CHECKING:
    from keyguard.settings.config import Settings

BUCKETS = {"15m": 900, "1h": 3600}
"""The seconds of each ``usage_bucket``."""

_CHOICES = {
    "on_limiter_error": ("open", "closed"),
    "usage_bucket": tuple(BUCKETS),
    "requesters": ("anyone", "people", "nobody"),
}


def settle(settings: Settings) -> None:
    """Check new settings, and keep each in its final form.

    Raises:
        InvalidValueError: A value has the wrong type, form or range.
        ConfigurationError: Two values contradict each other.
    """
    # The defaults are valid, and a part that only HTTP needs is built when it is first used.
    given = {
        setting.name: setting
        for setting in fields(settings)
        if getattr(settings, setting.name) is not setting.default
    }
    _check(settings, given.values())
    policy = settings.policy
    settled: dict[str, object] = {
        "catalogue": policy.catalogue,
        "imported_formats": tuple(form.name for form in policy.foreign),
        "default_limits": policy.default_limits,
        "failure_limit": policy.failure_limit,
        "plans": policy.plans,
    }
    # What remains is checked by the part that is built of it.
    if "realm" in given:
        _ = settings.responder
    if "public" in given or "rules" in given:
        book = settings.rule_book()
        settled["public"] = tuple(sorted(book.paths))
        settled["rules"] = book.rules[len(book.paths) :]
    if policy.plans:
        policy.check_plans(
            charged.limit for rule in settings.rule_book().rules for charged in rule.charged
        )
    if "trusted_proxies" in given:
        settled["trusted_proxies"] = settings.proxies.names
    if settings.approvals != {} or "approval_rules" in given:
        settled["approval_rules"] = settings.request_terms.rules
        settled["approvals"] = {**settings.approvals}
    if settings.principal_headers != {}:
        _ = settings.principal_fields
        settled["principal_headers"] = {**settings.principal_headers}
    if "carriers" in given:
        settled["carriers"] = _read_carriers(settings)
    if "peppers" in given:
        settled["peppers"] = read_peppers(settings.peppers)
    for name, value in settled.items():
        object.__setattr__(settings, name, value)
    if "peppers" in given or "hasher" in given:
        _ = settings.token_hasher
    if "websocket_protocol" in given:
        _ = settings.token_protocol
    if settings.revoke_exposed and not settings.require_https:
        raise ConfigurationError("revoke_exposed goes with require_https=True")


def _check(settings: Settings, given: Iterable[Field[object]]) -> None:
    """Refuse flags, numbers and choices of the wrong type, or out of range."""
    for setting in given:
        name, kind, value = setting.name, setting.type, getattr(settings, setting.name)
        if kind == "str | None" and not isinstance(value, str | None):
            # Not shown: the URL of a replica may hold a password.
            raise InvalidValueError(f"{name} takes a string or None, not a {type(value).__name__}")
        if kind == "bool" and not isinstance(value, bool):
            raise InvalidValueError(f"{name} takes True or False, not {shown(value)}")
        if "range" in setting.metadata:
            least, most = setting.metadata["range"]
            number = int if kind == "int" else int | float
            if isinstance(value, bool) or not isinstance(value, number):
                wanted = "a whole number" if kind == "int" else "a number"
                raise InvalidValueError(f"{name} takes {wanted}, not {shown(value)}")
            if not least <= value <= most:
                raise InvalidValueError(f"{name} takes {least} to {most}, not {shown(value)}")
        if name in _CHOICES and value not in _CHOICES[name]:
            *others, last = map(repr, _CHOICES[name])
            wanted = f"{', '.join(others)} or {last}"
            raise InvalidValueError(f"{name} takes {wanted}, not {shown(value)}")
        if name == "usage_tags":
            from keyguard.core.usage.tags import UsageTags

            if not isinstance(value, UsageTags):
                raise InvalidValueError(f"{name} takes UsageTags, not {shown(value)}")


def _read_carriers(settings: Settings) -> tuple[str, ...]:
    from keyguard.core.access.carriers import Carriers

    carriers = Carriers(settings.carriers)
    if any(map(settings.principal_fields.claims, carriers.headers)):
        raise ConfigurationError(
            "carriers and principal_headers name the same field: give one another name"
        )
    return carriers.names


def read_plans(plans: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Return plans with each rate in its usual spelling.

    Raises:
        InvalidValueError: They are no mapping of names to rates, or a name or a rate is malformed.
    """
    found: dict[str, Mapping[str, str]] = {}
    if not isinstance(plans, Mapping):
        raise InvalidValueError(f"plans takes a mapping of names to rates, not {shown(plans)}")
    for name, rates in plans.items():
        check_plan_name(name)
        if not isinstance(rates, Mapping):
            raise InvalidValueError(
                f"plan {shown(name)} takes a mapping of the names of limits to rates, such as "
                f"{{'key-minute': '1000/minute'}}, not {shown(rates)}"
            )
        found[name] = {limit: Limit(limit, rate).rate for limit, rate in rates.items()}
    return found
