"""Where settings come from: the environment, and one TOML file.

A reader returns the values of fields by name; :class:`~keyguard.Settings` checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit, parse_limit, read_limits
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.settings.peppers import parse_peppers

__all__ = ["read_environ", "read_file"]

_VARIABLES = "KEYGUARD_"
_SETTINGS_FILE = "KEYGUARD_SETTINGS"
_OTHER_VARIABLES = (
    "KEYGUARD_URL",
    "KEYGUARD_LIMITER",
    "KEYGUARD_SCOPES",
    "KEYGUARD_PEPPER",
    "KEYGUARD_PEPPER_FILE",
    _SETTINGS_FILE,
)
# What Kubernetes gives every pod beside a service that is called keyguard.
_OF_KUBERNETES = re.compile(r"KEYGUARD_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_.*)?)\Z")


def read_environ(environ: Mapping[str, str], *, peppers: bool = True) -> dict[str, Any]:
    """Read settings from environment variables, and from the file that one of them names.

    Args:
        environ: The environment.
        peppers: Whether to read the pepper ring.

    Raises:
        InvalidValueError: A value is not as said.
        ConfigurationError: A variable is unknown, or a file can't be read.
    """
    for name in environ:
        if (
            name.startswith(_VARIABLES)
            and name not in _known_variables()
            and not _OF_KUBERNETES.match(name)
        ):
            known = ", ".join(sorted(_known_variables()))
            raise ConfigurationError(f"{name} is no setting of keyguard's; there are: {known}")
    file = environ.get(_SETTINGS_FILE, "").strip()
    found = read_file(file) if file else {}
    for field in _READERS:
        text = environ.get(f"{_VARIABLES}{field.upper()}", "").strip()
        if text:
            found[field] = _read(field, text)
    if scopes := _read_list(environ, "KEYGUARD_SCOPES"):
        found["catalogue"] = dict.fromkeys(scopes, "")
    if peppers and (ring := _read_peppers(environ)):
        found["peppers"] = ring
    return found


def read_file(path: str | Path) -> dict[str, Any]:
    """Read settings from a TOML file.

    Args:
        path: The file.

    Raises:
        InvalidValueError: A value is not as said.
        ConfigurationError: The file can't be read, is no TOML, or has a name that is no setting.
    """
    import tomllib  # only who has such a file pays for it

    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        kind = type(problem).__name__
        raise ConfigurationError(
            f"the settings file {str(path)!r} can't be read ({kind})"
        ) from None
    except tomllib.TOMLDecodeError as problem:
        raise ConfigurationError(f"the settings file {str(path)!r} is no TOML: {problem}") from None
    if "peppers" in content:
        raise ConfigurationError(
            f"{str(path)!r} holds peppers: they are secrets, and go into KEYGUARD_PEPPER or the "
            "file that KEYGUARD_PEPPER_FILE names"
        )
    known = (*_READERS, "catalogue", "rules", "principal_headers")
    for name in content:
        if name not in known:
            raise ConfigurationError(
                f"{name!r} in {str(path)!r} is no setting of keyguard's; there are: "
                f"{', '.join(sorted(known))}"
            )
    for name, read in _TABLES.items():
        if name in content:
            try:
                content[name] = read(content[name])
            except InvalidValueError as problem:
                raise InvalidValueError(f"{name} in {str(path)!r}: {problem}") from None
    return content


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        text.lower()
    ]


def _failure_limit(text: str) -> str | None:
    return None if text.lower() == "none" else text


def _limits(text: str) -> tuple[Limit, ...]:
    return read_limits([parse_limit(part, "key") for part in text.split(";")], "key")


# The fields that are one word or a list of them: how the environment spells each.
_READERS: dict[str, tuple[Any, str]] = {
    "realm": (str, "text"),
    "prefix": (str, "text"),
    "hasher": (str, "text"),
    "public": (_words, "a list of paths"),
    "allow_preflight": (_flag, "true or false"),
    "require_https": (_flag, "true or false"),
    "revoke_exposed": (_flag, "true or false"),
    "trusted_proxies": (_words, "a list of networks"),
    "close_on_revoke": (_flag, "true or false"),
    "websocket_protocol": (str, "text"),
    "max_staleness": (float, "a number of seconds"),
    "cache_size": (int, "a whole number"),
    "record_addresses": (_flag, "true or false"),
    "store_timeout": (float, "a number of seconds"),
    "management_timeout": (float, "a number of seconds"),
    "hash_workers": (int, "a whole number"),
    "hash_timeout": (float, "a number of seconds"),
    "default_limits": (_limits, "rates such as '100/minute; daily=5000/day'"),
    "failure_limit": (_failure_limit, "a rate such as '30/minute', or none"),
    "limiter_timeout": (float, "a number of seconds"),
    "on_limiter_error": (str, "open or closed"),
    "legacy_headers": (_flag, "true or false"),
    "imported_formats": (_words, "a list of formats"),
}


def _known_variables() -> set[str]:
    return {*_OTHER_VARIABLES, *(f"{_VARIABLES}{name.upper()}" for name in _READERS)}


def _read_list(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    text = environ.get(name, "")
    if text and not _words(text):
        raise ConfigurationError(f"{name} is set and holds nothing; unset it, or give it a value")
    return _words(text)


def _read(name: str, text: str) -> Any:
    read, kind = _READERS[name]
    try:
        return read(text)
    except (ValueError, KeyError):
        raise InvalidValueError(f"KEYGUARD_{name.upper()} takes {kind}, not {text!r}") from None


def _read_peppers(environ: Mapping[str, str]) -> tuple[Secret, ...]:
    path = environ.get("KEYGUARD_PEPPER_FILE", "")
    given = _read_list(environ, "KEYGUARD_PEPPER")
    if given and path:
        raise ConfigurationError("set KEYGUARD_PEPPER or KEYGUARD_PEPPER_FILE, not both")
    if not path:
        return tuple(Secret(pepper) for pepper in given)
    try:
        ring = parse_peppers(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        kind = type(problem).__name__
        raise ConfigurationError(f"the pepper file {path!r} can't be read ({kind})") from None
    if not ring:
        raise ConfigurationError(f"the pepper file {path!r} holds no pepper")
    return ring


# What a file has as tables.


def _table_catalogue(table: object) -> ScopeCatalogue:
    if not isinstance(table, dict):
        raise InvalidValueError('a table such as "inference:read" = "Read inference capabilities"')
    scopes: dict[str, str] = {}
    implies: dict[str, Iterable[str]] = {}
    for name, entry in cast("dict[str, Any]", table).items():
        if isinstance(entry, str):
            scopes[name] = entry
            continue
        about = _fields(entry, f"scope {name!r}", {"description", "implies"})
        scopes[name] = about.get("description", "")
        implies[name] = about.get("implies", ())
    return ScopeCatalogue(scopes, implies=implies)


def _table_rules(table: object) -> tuple[Rule, ...]:
    if not isinstance(table, list):
        raise InvalidValueError("rules are tables: begin each with [[rules]]")
    found: list[Rule] = []
    wanted = {"path", "methods", "public", "scopes", "any_of", "limits", "cost"}
    for number, entry in enumerate(cast("list[object]", table), 1):
        given = _fields(entry, f"rule {number}", wanted)
        if "path" not in given:
            raise InvalidValueError(f"rule {number} has no path")
        if "limits" in given:
            given["limits"] = _table_limits(given["limits"])
        found.append(Rule(given.pop("path"), **given))
    return tuple(found)


def _table_limits(table: object) -> list[Limit | str]:
    entries = cast("list[object]", table if isinstance(table, list) else [table])
    found: list[Limit | str] = []
    for entry in entries:
        if isinstance(entry, str):
            found.append(entry)
            continue
        given = _fields(entry, "a limit", {"name", "rate", "per", "strategy", "enforce"})
        if not {"name", "rate"} <= given.keys():
            raise InvalidValueError(
                "a limit is a rate such as '60/minute', or has a name and a rate"
            )
        found.append(Limit(given.pop("name"), given.pop("rate"), **given))
    return found


def _fields(entry: object, what: str, known: set[str]) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InvalidValueError(f"{what} is a table with {', '.join(sorted(known))}, not {entry!r}")
    given = cast("dict[str, Any]", entry)
    for name in given:
        if name not in known:
            raise InvalidValueError(
                f"{what} has no {name!r}; there are: {', '.join(sorted(known))}"
            )
    return dict(given)


_TABLES: dict[str, Callable[[object], Any]] = {
    "catalogue": _table_catalogue,
    "rules": _table_rules,
    "default_limits": _table_limits,
}
