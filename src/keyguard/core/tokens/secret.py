"""Secret values, which must not show."""

from __future__ import annotations

from typing import NoReturn, final

from keyguard.exceptions import InvalidValueError


@final
class Secret:
    """A string that only :meth:`reveal` shows.

    ``repr``, ``str`` and formatting mask it; pickling, copying and ``dataclasses.asdict`` refuse.
    Two secrets are equal only if they are the same object: keyguard compares secrets in
    :mod:`keyguard.settings.hashing`, in constant time, and nowhere else.

    Args:
        value: The string.

    Raises:
        InvalidValueError: The value is no string. The message does not show it.
    """

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise InvalidValueError(f"a Secret holds a string, not a {type(value).__name__}")
        self.__value = value

    def reveal(self) -> str:
        """Return the string itself."""
        return self.__value

    def __repr__(self) -> str:
        return "Secret('**********')"

    def __str__(self) -> str:
        return "**********"

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(0)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError(
            "a Secret is not pickled or copied; call reveal() where you need the string"
        )

    def __copy__(self) -> NoReturn:
        self.__reduce_ex__(0)

    def __deepcopy__(self, memo: object) -> NoReturn:
        self.__reduce_ex__(0)
