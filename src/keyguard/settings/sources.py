"""Where settings come from: the environment, and one TOML file.

These functions return the values of fields by name; :class:`~keyguard.Settings` checks them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from keyguard.core.limits.limit import Limit, parse_limit, read_limits
from keyguard.core.spans import parse_span
from keyguard.core.texts import settled_text
from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError, shown, shown_path
from keyguard.settings.tables import TABLES, instead_of, is_array, is_table

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
_LENGTHS = ("float", "float | None")  # they are seconds, or a text such as 400d
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


# What is no number stays a text, which the setting refuses by saying what it takes.
def _read_whole_number(text: str) -> int | str:
    return int(text) if re.fullmatch(r"[+-]?[0-9]{1,20}", text) else text


def _read_seconds(text: str) -> float | str:
    with suppress(ValueError):
        return float(text)
    return _read_length(text)


def _read_length(text: str) -> float | str:
    """Return the seconds of a length of time such as ``400d``, as the command line reads it."""
    with suppress(InvalidValueError):
        return parse_span("", text, may_be_zero=True).total_seconds()
    return text


def _read_span(text: str) -> float | str | None:
    return None if text.lower() == "none" else _read_seconds(text)


def _read_failure_limit(text: str) -> str | None:
    return None if text.lower() == "none" else text


# How a setting of a type is read from its variable, and what the variable takes. A setting of
# another type has no variable of its own.
_READERS: dict[object, tuple[Callable[[str], object], str]] = {
    "str": (str, "text"),
    "str | None": (str, "text"),
    "bool": (_read_flag, "true or false"),
    "int": (_read_whole_number, "a whole number"),
    "float": (_read_seconds, "a number"),
    "float | None": (_read_span, "a number or none"),
    "Iterable[str]": (_read_words, "words"),
    "Limits": (_read_limits, "rates such as '100/minute; daily=5000/day'"),
    "Limit | str | None": (_read_failure_limit, "a rate such as '30/minute', or none"),
}


# How the variable of a number is written, by what its setting takes.
_WRITTEN = {
    " takes a whole number": ": write digits alone, such as 1000",
    " takes a number of seconds": ": write a number, or a length of time such as 30m or 90d",
}


class Found(NamedTuple):
    """Settings that were read.

    Args:
        values: The values by the names of the settings.
        places: Where each comes from, for a message: a variable, or an entry of a file.
    """

    values: dict[str, Any]
    places: dict[str, str]

    def placed(self, problem: InvalidValueError, overrides: Container[str]) -> InvalidValueError:
        """Return an error that names the place of the setting with whose name it begins.

        Args:
            problem: The error.
            overrides: The names of the settings that come from elsewhere.
        """
        name = str(problem).replace(":", " ").partition(" ")[0]
        place = None if name in overrides else self.places.get(name)
        if place is None:
            return problem
        words = str(problem)[len(name) :]
        if place.startswith("KEYGUARD_"):  # where None is written as none
            words = words.replace(" or None", " or none", 1)
            if words.endswith("'"):  # the value is still a text: nothing could read it
                words += next((how for kind, how in _WRITTEN.items() if words.startswith(kind)), "")
        return InvalidValueError(place + words)


def read_environ(environ: Mapping[str, str], types: Types, *, peppers: bool) -> Found:
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
                f"{variable} is not a setting of keyguard{instead_of(variable, known)}"
            )
    file = config_file(environ) if _CONFIG_FILE in environ else None
    found = {} if file is None else _read_file(file, types)
    places = {name: _place(name, file) for name in found}
    for variable, name in variables.items():
        multiline = types[name] in _LISTS
        if variable in environ and (text := read_variable(environ, variable, multiline=multiline)):
            read, takes = _READERS[types[name]]
            places[name] = variable
            with suppress(ValueError, KeyError):
                found[name] = read(text)
                continue
            raise InvalidValueError(f"{variable} takes {takes}, not {shown(text)}")
    if scopes := _read_list(environ, "KEYGUARD_SCOPES"):
        found["catalogue"], places["catalogue"] = dict.fromkeys(scopes, ""), "KEYGUARD_SCOPES"
    if peppers and (ring := _read_peppers(environ)):
        in_file = not environ.get("KEYGUARD_PEPPER")
        found["peppers"] = ring
        places["peppers"] = "KEYGUARD_PEPPER_FILE" if in_file else "KEYGUARD_PEPPER"
    return Found(found, places)


def _place(name: str, file: Path | None) -> str:
    return f"{name} in {shown_path(file)}"


def config_file(environ: Mapping[str, str]) -> Path | None:
    """Return the path of the file that ``KEYGUARD_CONFIG`` names, or None."""
    name = read_variable(environ, _CONFIG_FILE)
    return Path(name) if name else None


class Stores(NamedTuple):
    """What names the stores of a guard.

    Args:
        url: The URL of the key store; None if nothing names it. ``""`` if the variable is set but
            empty, perhaps by mistake; then no other store is used.
        limiter: The URL of the counters; None for the key store.
    """

    url: str | None
    limiter: str | None


def read_stores(environ: Mapping[str, str]) -> Stores:
    """Read which stores the environment names, or the file that ``KEYGUARD_CONFIG`` names.

    Args:
        environ: The environment.

    Raises:
        InvalidValueError: An entry of the file is not a string.
        ConfigurationError: The file can't be read or is not valid TOML, or a text holds a control
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
            where = _place(entry, file)
            if not isinstance(text, str):
                raise InvalidValueError(f"{where} takes text, not {shown(text)}")
            text = settled_text(where, text)
        found[entry] = text
    return Stores(found["url"], found["limiter"] or None)


def read_variable(environ: Mapping[str, str], variable: str, *, multiline: bool = False) -> str:
    """Return what a variable holds, as :func:`settled_text`; ``""`` if it is not set."""
    return settled_text(variable, environ.get(variable, ""), multiline=multiline)


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
            f"the settings file {shown_path(path)} is not valid TOML: {problem}"
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
                f"{shown(name)} in {shown_path(path)} is not a setting of keyguard"
                f"{instead_of(name, {*known, *_STORES})}"
            )
        # A description in the catalogue may have several lines.
        where, multiline = _place(name, path), name == "catalogue"
        content[name] = _settled(where, value, multiline=multiline)
        if types[name] in _LENGTHS and isinstance(value, str):
            content[name] = _read_length(settled_text(where, value))
        if name in TABLES:
            try:
                content[name] = TABLES[name](content[name])
            except InvalidValueError as problem:
                raise InvalidValueError(f"{where}: {problem}") from None
    return content


def _settled(where: str, value: object, *, multiline: bool) -> object:
    """Return a value of a file with the texts in it as :func:`settled_text` returns them."""
    if isinstance(value, str):
        return settled_text(where, value, multiline=multiline)
    if is_array(value):
        return [_settled(where, item, multiline=multiline) for item in value]
    if is_table(value):
        return {name: _settled(where, entry, multiline=multiline) for name, entry in value.items()}
    return value
