"""How a setting is declared: once, with its default, its range, its readers and its description."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, NamedTuple, TypeVar, cast

from keyguard.exceptions import InvalidValueError
from keyguard.settings.reading import READERS, Reader

T = TypeVar("T")

_LINE = r"(.{1,84})(?: |$)"


class Setting(NamedTuple):
    """What is known of a setting beside its name and type.

    Args:
        default: Its default.
        about: What it means, for the documentation.
        text: Reads the environment variable; None if it has none of its own.
        table: Reads the value of a TOML file; None if a file can't set it.
        least: The smallest number.
        most: The largest number.
        choices: The only values; empty for any.
    """

    default: object
    about: str
    text: Reader | None
    table: Callable[[object], object] | None
    least: float
    most: float
    choices: tuple[str, ...]

    def check(self, name: str, value: object) -> None:
        """Refuse a value of the wrong type or out of range.

        Raises:
            InvalidValueError: A flag is no bool, a number has the wrong type or is out of range, or
                the value is none of the choices.
        """
        if isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise InvalidValueError(f"{name} takes True or False, not {value!r}")
        elif isinstance(self.default, int | float):
            whole = isinstance(self.default, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                wanted = "a whole number" if whole else "a number"
                raise InvalidValueError(f"{name} takes {wanted}, not {value!r}")
            if not self.least <= value <= self.most:
                raise InvalidValueError(f"{name} takes {self.least} to {self.most}, not {value!r}")
        elif self.choices and value not in self.choices:
            known = " or ".join(map(repr, self.choices))
            raise InvalidValueError(f"{name} takes {known}, not {value!r}")


def setting(
    default: T,
    about: str,
    *,
    text: Reader | None = None,
    table: Callable[[object], object] | None = None,
    least: float = 0,
    most: float = 0,
    choices: tuple[str, ...] = (),
) -> T:
    """Declare a field of :class:`~keyguard.Settings`.

    Args:
        default: Its default. The type of a bool, number or string tells how to read it.
        about: What it means, for the documentation.
        text: Reads the environment variable, if the default's type does not tell how.
        table: Reads the value of a TOML file, if that is not the value itself.
        least: The smallest number.
        most: The largest number.
        choices: The only values; empty for any.
    """
    text = text or READERS.get(type(default))
    if table is None and text is not None:
        table = as_it_is
    declared = Setting(default, about, text, table, least, most, choices)
    metadata = {"setting": declared}
    if isinstance(default, dict):
        values = cast("dict[str, str]", default)
        mapping: Any = field(default_factory=lambda: dict(values), hash=False, metadata=metadata)
        return mapping  # type: ignore[no-any-return]  # a field stands for its default
    return field(default=default, metadata=metadata)


def describe(settings: Mapping[str, Setting]) -> str:
    """Return the ``Args:`` section of a docstring for the settings."""
    lines = ["Args:"]
    for name, declared in settings.items():
        about = f"{name}: {declared.about}"
        if declared.most:
            about += f" From {declared.least:,.10g} to {declared.most:,.10g}."
        first, *others = re.findall(_LINE, about)
        lines += [f"        {first}", *(f"            {line}" for line in others)]
    return "\n".join(lines)


def as_it_is(value: object) -> object:
    """Return the value of a TOML file as it is: Settings checks it."""
    return value
