"""Where settings come from: the environment, and one TOML file.

These functions return the values of fields by name; :class:`~keyguard.Settings` checks them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keyguard.core.tokens.secret import Secret
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.settings.declaring import Setting
from keyguard.settings.peppers import parse_peppers
from keyguard.settings.reading import Reader, split_words

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
# Kubernetes sets these in every pod beside a service that is called keyguard.
_OF_KUBERNETES = r"KEYGUARD_(SERVICE_(HOST|PORT(_.*)?)|PORT(_\d+_.*)?)\Z"


def read_environ(
    environ: Mapping[str, str], settings: Mapping[str, Setting], *, peppers: bool = True
) -> dict[str, Any]:
    """Read settings from environment variables, and from the file that one of them names.

    Args:
        environ: The environment.
        settings: All settings by name.
        peppers: Whether to read the pepper ring.

    Raises:
        InvalidValueError: A variable or an entry of the file does not have the form that its
            setting takes.
        ConfigurationError: A variable is unknown or empty, or a file can't be read.
    """
    readers = {
        f"{_VARIABLES}{name.upper()}": (name, declared.text)
        for name, declared in settings.items()
        if declared.text is not None
    }
    known = {*_OTHER_VARIABLES, *readers}
    for variable in environ:
        if (
            variable.startswith(_VARIABLES)
            and variable not in known
            and not re.match(_OF_KUBERNETES, variable)
        ):
            raise ConfigurationError(
                f"{variable} is no setting of keyguard's; there are: {', '.join(sorted(known))}"
            )
    file = environ.get(_SETTINGS_FILE, "").strip()
    found = read_file(file, settings) if file else {}
    for variable, (name, reader) in readers.items():
        text = environ.get(variable, "").strip()
        if text:
            found[name] = _read(variable, reader, text)
    if scopes := _read_list(environ, "KEYGUARD_SCOPES"):
        found["catalogue"] = dict.fromkeys(scopes, "")
    if peppers and (ring := _read_peppers(environ)):
        found["peppers"] = ring
    return found


def read_file(path: str | Path, settings: Mapping[str, Setting]) -> dict[str, Any]:
    """Read settings from a TOML file.

    Args:
        path: The file.
        settings: All settings by name.

    Raises:
        InvalidValueError: An entry does not have the form that its setting takes.
        ConfigurationError: The file can't be read, is not TOML, or names an unknown setting.
    """
    import tomllib  # only a service with such a file pays for it

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
    tables = {name: declared.table for name, declared in settings.items() if declared.table}
    for name, value in content.items():
        if name not in tables:
            raise ConfigurationError(
                f"{name!r} in {str(path)!r} is no setting of keyguard's; there are: "
                f"{', '.join(sorted(tables))}"
            )
        try:
            content[name] = tables[name](value)
        except InvalidValueError as problem:
            raise InvalidValueError(f"{name} in {str(path)!r}: {problem}") from None
    return content


def _read(variable: str, reader: Reader, text: str) -> object:
    try:
        return reader.read(text)
    except (ValueError, KeyError):
        raise InvalidValueError(f"{variable} takes {reader.takes}, not {text!r}") from None


def _read_list(environ: Mapping[str, str], variable: str) -> tuple[str, ...]:
    text = environ.get(variable, "")
    if text and not split_words(text):
        raise ConfigurationError(
            f"{variable} is set and holds nothing; unset it, or give it a value"
        )
    return split_words(text)


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
