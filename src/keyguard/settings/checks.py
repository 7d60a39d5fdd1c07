"""The checks of settings, and the form in which a guard keeps what was given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields
from datetime import timedelta
from math import ceil
from typing import TypeGuard

from keyguard.exceptions import ConfigurationError, InvalidValueError, shown
from keyguard.settings.fields import BUCKETS, Fields
from keyguard.settings.hashing import read_peppers

_CHOICES = {
    "on_limiter_error": ("open", "closed"),
    "usage_bucket": tuple(BUCKETS),
    "requesters": ("anyone", "people", "nobody"),
}
_KEPT = ("keep_ended_keys", "keep_audit")


def settle(settings: Fields) -> None:
    """Check new settings, and keep each in its final form.

    Raises:
        InvalidValueError: A value has the wrong type, form or range. If that of one setting is not
            valid by itself, the message begins with the setting's name.
        ConfigurationError: Two values contradict each other.
    """
    given = {**vars(settings)}
    try:
        _settle(settings)
    except InvalidValueError as failure:
        culprit = _find_culprit(type(settings), given, str(failure))
        if culprit is None or str(failure).startswith(f"{culprit} "):
            raise
        named = f"{culprit}: {failure}"
    else:
        return
    raise InvalidValueError(named)


def _find_culprit(kind: type[Fields], given: Mapping[str, object], problem: str) -> str | None:
    """Return the name of the setting whose value alone gives the same problem, if one does.

    The parts that are built of a setting know their values, and not what the setting is called.
    """
    for name in given:
        alone = object.__new__(kind)
        for setting in fields(kind):
            value = setting.default
            if setting.default_factory is not MISSING:
                value = setting.default_factory()
            if value is MISSING or setting.name == name:
                value = given[setting.name]
            object.__setattr__(alone, setting.name, value)
        try:
            _settle(alone)
        except InvalidValueError as failure:
            if str(failure) == problem:
                return name
        except ConfigurationError:
            pass  # it is valid only beside another setting
    return None


def _settle(settings: Fields) -> None:
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


def _check(settings: Fields, given: Iterable[Field[object]]) -> None:
    """Refuse flags, numbers and choices of the wrong type, or out of range."""
    for setting in given:
        name, kind, value = setting.name, setting.type, getattr(settings, setting.name)
        if kind == "str | None" and not isinstance(value, str | None):
            # Not shown: the URL of a replica may hold a password.
            raise InvalidValueError(f"{name} takes a string or None, not {type(value).__name__}")
        if kind == "bool" and not isinstance(value, bool):
            raise InvalidValueError(f"{name} takes True or False, not {shown(value)}")
        if "range" in setting.metadata:
            least, most, unit = setting.metadata["range"]
            wanted = "a whole number" if kind == "int" else "a number"
            days = why = ""
            if name in _KEPT:
                span, why = settings.request_terms.least_kept(timedelta(seconds=least))
                least = ceil(span.total_seconds())
                days = f" ({least / 86_400:.4g} days)"
            if not _is_number(value, kind) or not least <= value <= most:
                none = " or None" if kind == "float | None" else ""
                raise InvalidValueError(
                    f"{name} takes {wanted} of {unit} from {least:,}{days} to {most:,}{none}{why}, "
                    f"not {shown(value)}"
                )
        if name in _CHOICES and value not in _CHOICES[name]:
            *others, last = map(repr, _CHOICES[name])
            wanted = f"{', '.join(others)} or {last}"
            raise InvalidValueError(f"{name} takes {wanted}, not {shown(value)}")
        if name == "usage_tags":
            from keyguard.core.usage.tags import UsageTags

            if not isinstance(value, UsageTags):
                raise InvalidValueError(f"{name} takes UsageTags, not {shown(value)}")


def _is_number(value: object, kind: object) -> TypeGuard[float]:
    """Tell whether a value is a number, and a whole one where the field takes no other."""
    return isinstance(value, int if kind == "int" else int | float) and not isinstance(value, bool)


def _read_carriers(settings: Fields) -> tuple[str, ...]:
    from keyguard.core.access.carriers import Carriers

    carriers = Carriers(settings.carriers)
    if any(map(settings.principal_fields.claims, carriers.headers)):
        raise ConfigurationError(
            "carriers and principal_headers name the same field: give one another name"
        )
    return carriers.names
