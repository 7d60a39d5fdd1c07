"""How settings are read: from texts of the environment, and from tables of a TOML file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, cast

from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit, parse_limit, read_limits
from keyguard.exceptions import InvalidValueError


class Reader(NamedTuple):
    """Reads the text of an environment variable.

    Args:
        read: Returns the value; raises ValueError or KeyError for any other text.
        takes: What the variable takes, for a message.
    """

    read: Callable[[str], object]
    takes: str


# Texts of the environment


def words(takes: str) -> Reader:
    """Return a reader of words that white space or commas separate.

    Args:
        takes: What the variable takes, for a message.
    """
    return Reader(split_words, takes)


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a text, which white space or commas separate."""
    return tuple(text.replace(",", " ").split())


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        text.lower()
    ]


def _failure_limit(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _limits(text: str) -> tuple[Limit, ...]:
    return read_limits([parse_limit(part, "key") for part in text.split(";")], "key")


TEXT = Reader(str, "text")
LIMITS = Reader(_limits, "rates such as '100/minute; daily=5000/day'")
FAILURE_LIMIT = Reader(_failure_limit, "a rate such as '30/minute', or none")
READERS: dict[type, Reader] = {
    str: TEXT,
    bool: Reader(_flag, "true or false"),
    int: Reader(int, "a whole number"),
    float: Reader(float, "a number of seconds"),
}


# Tables of a TOML file


def read_catalogue(table: object) -> ScopeCatalogue:
    """Return the catalogue of a table of scope and description.

    Raises:
        InvalidValueError: The value is no table, an entry is neither a description nor a table of
            ``description`` and ``implies``, or a scope is malformed.
    """
    if not isinstance(table, dict):
        raise InvalidValueError('a table such as "inference:read" = "Read inference capabilities"')
    scopes: dict[str, str] = {}
    implies: dict[str, Iterable[str]] = {}
    for name, entry in cast("dict[str, object]", table).items():
        if isinstance(entry, str):
            scopes[name] = entry
            continue
        given = _entries(entry, f"scope {name!r}", {"description", "implies"})
        scopes[name] = given.get("description", "")
        implies[name] = given.get("implies", ())
    return ScopeCatalogue(scopes, implies=implies)


def read_rules(table: object) -> tuple[Rule, ...]:
    """Return the rules of an array of tables.

    Raises:
        InvalidValueError: The value is no array of tables, or a table is no rule.
    """
    if not isinstance(table, list):
        raise InvalidValueError("rules are tables: begin each with [[rules]]")
    found: list[Rule] = []
    wanted = {"path", "methods", "public", "scopes", "any_of", "limits", "cost"}
    for number, entry in enumerate(cast("list[object]", table), 1):
        given = _entries(entry, f"rule {number}", wanted)
        if "path" not in given:
            raise InvalidValueError(f"rule {number} has no path")
        if "limits" in given:
            given["limits"] = read_table_limits(given["limits"])
        found.append(Rule(given.pop("path"), **given))
    return tuple(found)


def read_table_limits(table: object) -> list[Limit | str]:
    """Return limits: each entry is a rate or a table of a limit.

    Raises:
        InvalidValueError: A table is no limit.
    """
    entries = cast("list[object]", table if isinstance(table, list) else [table])
    found: list[Limit | str] = []
    for entry in entries:
        if isinstance(entry, str):
            found.append(entry)
            continue
        given = _entries(entry, "a limit", {"name", "rate", "per", "strategy", "enforce"})
        if not {"name", "rate"} <= given.keys():
            raise InvalidValueError(
                "a limit is a rate such as '60/minute', or has a name and a rate"
            )
        found.append(Limit(given.pop("name"), given.pop("rate"), **given))
    return found


def _entries(entry: object, what: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InvalidValueError(f"{what} is a table with {', '.join(sorted(known))}, not {entry!r}")
    given = cast("dict[str, Any]", entry)
    for name in given:
        if name not in known:
            raise InvalidValueError(
                f"{what} has no {name!r}; there are: {', '.join(sorted(known))}"
            )
    return dict(given)
