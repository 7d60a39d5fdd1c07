"""Builds the settings whose value in a file has another form than in Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeGuard

from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit
from keyguard.exceptions import InvalidValueError, shown

if TYPE_CHECKING:
    from keyguard.core.management.request_terms import ApprovalRule


def is_table(value: object) -> TypeGuard[dict[str, object]]:
    """Return whether a value of a file is a table."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Return whether a value of a file is an array."""
    return isinstance(value, list)


def _build_catalogue(table: object) -> ScopeCatalogue:
    if not is_table(table):
        raise InvalidValueError(
            'it is a table such as "inference:read" = "Read inference capabilities"'
        )
    scopes: dict[str, str] = {}
    implies: dict[str, Iterable[str]] = {}
    for name, entry in table.items():
        if isinstance(entry, str):
            scopes[name] = entry
        else:
            given = _read_table(entry, f"scope {shown(name)}", {"description", "implies"})
            scopes[name] = given.get("description", "")
            implies[name] = given.get("implies", ())
    return ScopeCatalogue(scopes, implies=implies)


def _build_rules(tables: object) -> tuple[Rule, ...]:
    if not is_array(tables):
        raise InvalidValueError("rules are tables: begin each with [[rules]]")
    rules: list[Rule] = []
    wanted = {"path", "methods", "public", "scopes", "any_of", "limits", "cost", "also"}
    for number, entry in enumerate(tables, 1):
        given = _read_table(entry, f"rule {number}", wanted)
        if "path" not in given:
            raise InvalidValueError(f"rule {number} has no path")
        if "limits" in given:
            given["limits"] = _build_limits(given["limits"])
        rules.append(Rule(**given))
    return tuple(rules)


def _build_approval_rules(tables: object) -> tuple[ApprovalRule, ...]:
    from keyguard.core.management.request_terms import ApprovalRule  # few services have one

    if not is_array(tables):
        raise InvalidValueError("they are tables: begin each with [[approval_rules]]")
    rules: list[ApprovalRule] = []
    for number, entry in enumerate(tables, 1):
        wanted = {"name", "scopes", "longest", "requesters"}
        given = _read_table(entry, f"approval rule {number}", wanted)
        if not {"name", "scopes"} <= given.keys():
            raise InvalidValueError(f"approval rule {number} has a name and scopes")
        if isinstance(seconds := given.get("longest"), int | float):
            given["longest"] = timedelta(seconds=seconds)
        rules.append(ApprovalRule(**given))
    return tuple(rules)


def _build_limits(entries: object) -> list[Limit | str]:
    limits: list[Limit | str] = []
    for entry in entries if is_array(entries) else [entries]:
        if isinstance(entry, str):
            limits.append(entry)
            continue
        given = _read_table(entry, "a limit", {"name", "rate", "per", "strategy", "enforce"})
        if not {"name", "rate"} <= given.keys():
            raise InvalidValueError(
                "a limit is a rate such as '60/minute', or has a name and a rate"
            )
        limits.append(Limit(**given))
    return limits


_PREFIX = "KEYGUARD_"


def instead_of(name: str, known: Collection[str]) -> str:
    """Return the end of a message about a name that is not known: the nearest one, or all."""
    from difflib import get_close_matches  # only a misspelt name pays for it

    # What all variables begin with would make any two of them alike.
    bare = {each.removeprefix(_PREFIX): each for each in known}
    near = get_close_matches(name.removeprefix(_PREFIX), sorted(bare), n=1, cutoff=0.7)
    if near:
        return f": did you mean `{bare[near[0]]}`?"
    return f"; use one of: {', '.join(sorted(known))}"


def _read_table(entry: object, what: str, known: set[str]) -> dict[str, Any]:
    if not is_table(entry):
        raise InvalidValueError(
            f"{what} is a table with {', '.join(sorted(known))}, not {shown(entry)}"
        )
    for name in entry:
        if name not in known:
            raise InvalidValueError(f"{what} has no {shown(name)}{instead_of(name, known)}")
    return dict(entry)


TABLES: dict[str, Callable[[object], object]] = {
    "approval_rules": _build_approval_rules,
    "catalogue": _build_catalogue,
    "rules": _build_rules,
    "default_limits": _build_limits,
}
"""What builds such a setting by its name."""
