"""Tags: a service's names for its requests, which group their usage."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from keyguard.core.identity.principal import Principal, Request
from keyguard.core.usage.values import OTHER_TAG
from keyguard.exceptions import InvalidValueError, shown

TagOf: TypeAlias = Callable[[Principal, Request], str | None]

_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")
_MOST_TAGS = 50


@dataclass(frozen=True, slots=True)
class UsageTags:
    """The tags of a service's requests, for :class:`~keyguard.Settings`.

    ::

        UsageTags(["search", "chat"], lambda principal, request: request.path.split("/")[2])

    Args:
        names: The tags, 1 to 50. Each has up to 40 letters, digits, ``.``, ``_`` and ``-``.
        function: Given the principal and the request, returns one of the tags, or None for no tag.
            Any other text, and an exception, make it the tag ``other``. It is called once for each
            request of a key, and must be quick.

    Raises:
        InvalidValueError: A tag is malformed, there are too many, or there is no function.
    """

    names: Iterable[str]
    function: TagOf

    def __post_init__(self) -> None:
        is_list = isinstance(self.names, Iterable) and not isinstance(self.names, str)
        names = tuple(self.names) if is_list else ()
        if not 1 <= len(names) <= _MOST_TAGS:
            raise InvalidValueError(f"UsageTags takes a list of 1 to {_MOST_TAGS} tags")
        for name in names:
            if not isinstance(name, str) or not _TAG.match(name):
                raise InvalidValueError(
                    f"a tag has up to 40 letters, digits, '.', '_' and '-', not {shown(name)}"
                )
        if not callable(self.function):
            raise InvalidValueError("UsageTags takes a function of the principal and the request")
        object.__setattr__(self, "names", frozenset(names))

    def tag_of(self, principal: Principal, request: Request) -> str:
        """Return the tag of a request, or ``""`` for none."""
        try:
            tag = self.function(principal, request)
        except Exception:  # noqa: BLE001 - a request does not fail because it can't be counted
            return OTHER_TAG
        if tag is None:
            return ""
        return tag if isinstance(tag, str) and tag in frozenset(self.names) else OTHER_TAG
