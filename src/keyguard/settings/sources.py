"""Where settings come from: the environment, and one TOML file.

These functions return the values of fields by name; :class:`~keyguard.Settings` checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard

from keyguard.core.http.rules import Rule
from keyguard.core.identity.scopes import ScopeCatalogue
from keyguard.core.limits.limit import Limit, parse_limit, read_limits
from keyguard.core.texts import fits
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError, shown, shown_path

if TYPE_CHECKING:
    from keyguard.core.management.request_terms import ApprovalRule

Types: TypeAlias = Mapping[str, object]
"""The type of each setting by its name, as the class spells it."""

_CONFIG_FILE = "KEYGUARD_CONFIG"
_STORES = {"url": "KEYGUARD_URL", "limiter": "KEYGUARD_LIMITER"}
"""What names the stores: the entry of the file, and the variable that comes before it."""
STORE_VARIABLES = frozenset({*_STORES.values(), _CONFIG_FILE})
"""The variables by which :func:`read_stores` finds anything."""
_OTHER_VARIABLES = (
    *_STORES.values(),
    "KEYGUARD_APP",
    "KEYGUARD_SCOPES",
    "KEYGUARD_PEPPER",
    "KEYGUARD_PEPPER_FILE",
    _CONFIG_FILE,
)
_LISTS = ("Iterable[str]", "Limits")  # their variables may hold line breaks and tabs
_GAPS = dict.fromkeys(map(ord, "\t\r\n"), " ")
# Kubernetes sets these in every pod beside a service that is called keyguard.
_OF_KUBERNETES = r"KEYGUARD_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_.*)?)\Z"


def _read_flag(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        text.lower()
    ]


def _read_words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


def _read_limits(text: str) -> tuple[Limit, ...]:
    return read_limits([parse_limit(part, "key") for part in text.split(";")], "key")


def _read_seconds(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def _read_failure_limit(text: str) -> str | None:
    return None if text.lower() == "none" else text


# How a setting of a type is read from its variable, and what the variable takes. A setting of
# another type has no variable of its own.
_READERS: dict[object, tuple[Callable[[str], object], str]] = {
    "str": (str, "text"),
    "str | None": (str, "text"),
    "bool": (_read_flag, "true or false"),
    "int": (int, "a whole number"),
    "float": (float, "a number of seconds"),
    "float | None": (_read_seconds, "a number of seconds, or none"),
    "Iterable[str]": (_read_words, "words"),
    "Limits": (_read_limits, "rates such as '100/minute; daily=5000/day'"),
    "Limit | str | None": (_read_failure_limit, "a rate such as '30/minute', or none"),
}


def read_environ(environ: Mapping[str, str], types: Types, *, peppers: bool) -> dict[str, Any]:
    """Read settings from environment variables, and from the file that one of them names.

    Args:
        environ: The environment.
        types: The type of each setting.
        peppers: Whether to read the pepper ring.

    Raises:
        InvalidValueError: A variable or an entry of the file does not have the form that its
            setting takes.
        ConfigurationError: A variable is unknown or empty, a file can't be read, or a text holds a
            control character.
    """
    variables = {f"KEYGUARD_{name.upper()}": name for name in types if types[name] in _READERS}
    known = {*_OTHER_VARIABLES, *variables}
    for variable in environ:
        if (
            variable.startswith("KEYGUARD_")
            and variable not in known
            and not re.match(_OF_KUBERNETES, variable)
        ):
            raise ConfigurationError(
                f"{variable} is no setting of keyguard's; there are: {', '.join(sorted(known))}"
            )
    file = config_file(environ) if _CONFIG_FILE in environ else None
    found = {} if file is None else _read_file(file, types)
    for variable, name in variables.items():
        multiline = types[name] in _LISTS
        if variable in environ and (text := read_variable(environ, variable, multiline=multiline)):
            read, takes = _READERS[types[name]]
            with suppress(ValueError, KeyError):
                found[name] = read(text)
                continue
            raise InvalidValueError(f"{variable} takes {takes}, not {shown(text)}")
    if scopes := _read_list(environ, "KEYGUARD_SCOPES"):
        found["catalogue"] = dict.fromkeys(scopes, "")
    if peppers and (ring := _read_peppers(environ)):
        found["peppers"] = ring
    return found


def config_file(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the file that ``KEYGUARD_CONFIG`` names, or None."""
    name = read_variable(environ, _CONFIG_FILE)
    return Path(name) if name else None


class Stores(NamedTuple):
    """What names the stores of a guard.

    Args:
        url: The URL of the key store; None if nothing names it. It is ``""`` if the variable is
            empty, perhaps by mistake: then no other store is taken.
        limiter: The URL of the counters; None for beside the keys.
    """

    url: str | None
    limiter: str | None


def read_stores(environ: Mapping[str, str]) -> Stores:
    """Read which stores the environment names, or the file that ``KEYGUARD_CONFIG`` names.

    Args:
        environ: The environment.

    Raises:
        InvalidValueError: An entry of the file is not a text.
        ConfigurationError: The file can't be read or is no TOML, or a text holds a control
            character.
    """
    file = config_file(environ) if _CONFIG_FILE in environ else None
    content = {} if file is None else _read_toml(file)
    found: dict[str, str | None] = {}
    for entry, variable in _STORES.items():
        text = content.get(entry)
        if variable in environ:
            text = read_variable(environ, variable)
        elif text is not None:
            where = f"{entry} in {shown_path(file)}"
            if not isinstance(text, str):
                raise InvalidValueError(f"{where} takes text, not {shown(text)}")
            text = settled_text(where, text)
        found[entry] = text
    return Stores(found["url"], found["limiter"] or None)


def read_variable(environ: Mapping[str, str], variable: str, *, multiline: bool = False) -> str:
    """Return what a variable holds, as :func:`settled_text`; ``""`` if it is not set."""
    return settled_text(variable, environ.get(variable, ""), multiline=multiline)


def settled_text(what: str, text: str, *, multiline: bool = False) -> str:
    """Return the text of a setting without the white space around it.

    Args:
        what: Where the text comes from, for the message of an error. The text may be a secret.
        text: The text.
        multiline: Whether line breaks and tabs may be inside.

    Raises:
        ConfigurationError: Another control character is inside.
    """
    text = text.strip()
    if not fits(text.translate(_GAPS) if multiline else text):
        raise ConfigurationError(
            f"{what} holds a control character, such as a line break; remove it"
        )
    return text


def _read_list(environ: Mapping[str, str], variable: str) -> tuple[str, ...]:
    """Return the items that a variable lists; none if it is not set."""
    if not environ.get(variable):
        return ()
    words = _read_words(read_variable(environ, variable, multiline=True))
    if not words:
        raise ConfigurationError(
            f"{variable} is set and holds nothing; unset it, or give it a value"
        )
    return words


def _read_peppers(environ: Mapping[str, str]) -> tuple[Secret, ...]:
    ring = tuple(map(Secret, _read_list(environ, "KEYGUARD_PEPPER")))
    if not environ.get("KEYGUARD_PEPPER_FILE"):
        return ring
    if ring:
        raise ConfigurationError("set KEYGUARD_PEPPER or KEYGUARD_PEPPER_FILE, not both")
    path = Path(read_variable(environ, "KEYGUARD_PEPPER_FILE"))
    text, what = _read_text(path, "pepper"), f"the pepper file {shown_path(path)}"
    ring = parse_peppers(settled_text(what, text, multiline=True))
    if not ring:
        raise ConfigurationError(f"{what} holds no pepper")
    return ring


def parse_peppers(text: str) -> tuple[Secret, ...]:
    """Read a pepper ring: peppers separated by white space or commas, the newest first."""
    return tuple(map(Secret, _read_words(text)))


def _read_text(path: Path, kind: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        why = type(problem).__name__
    raise ConfigurationError(
        f"the {kind} file {shown_path(path)} can't be read ({why}); this folder is "
        f"{str(Path.cwd())!r}: name the file by its whole path, and let this process read it"
    )


def _read_toml(path: Path) -> dict[str, object]:
    import tomllib  # only a service with such a file pays for it

    try:
        return tomllib.loads(_read_text(path, "settings"))
    except ValueError as problem:  # or a number of more digits than Python reads
        raise ConfigurationError(
            f"the settings file {shown_path(path)} is no TOML: {problem}"
        ) from None


def _read_file(path: Path, types: Types) -> dict[str, object]:
    content = _read_toml(path)
    for entry in _STORES:  # what opens the stores reads these
        content.pop(entry, None)
    if "peppers" in content:
        raise ConfigurationError(
            f"{shown_path(path)} holds peppers: they are secrets, and go into KEYGUARD_PEPPER or "
            "the file that KEYGUARD_PEPPER_FILE names"
        )
    known = types.keys() - {"peppers"}
    for name, value in content.items():
        if name not in known:
            raise ConfigurationError(
                f"{shown(name)} in {shown_path(path)} is no setting of keyguard's; there are: "
                f"{', '.join(sorted({*known, *_STORES}))}"
            )
        # A description in the catalogue may have several lines.
        where, multiline = f"{name} in {shown_path(path)}", name == "catalogue"
        content[name] = _settled(where, value, multiline=multiline)
        if name in _TABLES:
            try:
                content[name] = _TABLES[name](content[name])
            except InvalidValueError as problem:
                raise InvalidValueError(f"{where}: {problem}") from None
    return content


def _settled(where: str, value: object, *, multiline: bool) -> object:
    """Return a value of a file with the texts in it as :func:`settled_text` returns them."""
    if isinstance(value, str):
        return settled_text(where, value, multiline=multiline)
    if _is_array(value):
        return [_settled(where, item, multiline=multiline) for item in value]
    if _is_table(value):
        return {name: _settled(where, entry, multiline=multiline) for name, entry in value.items()}
    return value


def _is_table(value: object) -> TypeGuard[dict[str, object]]:
    return isinstance(value, dict)


def _is_array(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)


def _build_catalogue(table: object) -> ScopeCatalogue:
    if not _is_table(table):
        raise InvalidValueError('a table such as "inference:read" = "Read inference capabilities"')
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
    if not _is_array(tables):
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

    if not _is_array(tables):
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
    for entry in entries if _is_array(entries) else [entries]:
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


def _read_table(entry: object, what: str, known: set[str]) -> dict[str, Any]:
    if not _is_table(entry):
        raise InvalidValueError(
            f"{what} is a table with {', '.join(sorted(known))}, not {shown(entry)}"
        )
    for name in entry:
        if name not in known:
            raise InvalidValueError(
                f"{what} has no {shown(name)}; there are: {', '.join(sorted(known))}"
            )
    return dict(entry)


# The settings whose value in a file has another form than in Python.
_TABLES: dict[str, Callable[[object], object]] = {
    "approval_rules": _build_approval_rules,
    "catalogue": _build_catalogue,
    "rules": _build_rules,
    "default_limits": _build_limits,
}
