"""Which requests need no key."""

from __future__ import annotations

import re
from collections.abc import Iterable

from keyguard.exceptions import InvalidValueError

__all__ = ["PublicPaths", "route_path"]

# Where a server decodes these before routing, two parties may read the path differently.
_AMBIGUOUS_RAW = re.compile(rb"%(2f|5c|00|2e)|[\\\x00]|//|/\.{1,2}(/|\Z)|\A[^/]", re.IGNORECASE)
_SEGMENT = r"[^/\\?#%*\x00-\x20\x7f\ud800-\udfff]"
_PLAIN_PATH = re.compile(rf"/({_SEGMENT}+/)*{_SEGMENT}*\Z")


class PublicPaths:
    """The exact paths that are open to everyone.

    Args:
        paths: Such as ``["/healthz"]``; compared exactly with the path that the router sees.

    Raises:
        InvalidValueError: One is no plain absolute path.
    """

    __slots__ = ("paths",)

    def __init__(self, paths: Iterable[str] = ()) -> None:
        if isinstance(paths, str):
            raise InvalidValueError(f"public paths are a list: write [{paths!r}]")
        if not isinstance(paths, Iterable):
            raise InvalidValueError(f"public paths are a list, not {paths!r}")
        self.paths = frozenset(paths)
        for path in self.paths:
            if (
                not isinstance(path, str)
                or not _PLAIN_PATH.match(path)
                or {".", ".."} & {*path.split("/")}
            ):
                raise InvalidValueError(
                    f"{path!r} is no plain path: start with '/', without patterns, dot segments, "
                    "empty segments, escapes and a query"
                )

    def admits(self, path: str, raw_path: bytes | None) -> bool:
        """Tell whether a request needs no key.

        Args:
            path: The decoded path that the router sees.
            raw_path: The path as it stood on the request line, without the query, or None where
                the server does not say. An ambiguous one is never public.
        """
        return path in self.paths and not (raw_path and _AMBIGUOUS_RAW.search(raw_path))


def route_path(path: str, root_path: str) -> str:
    """Return the path that an ASGI router sees: ``path`` without the mount it lies under."""
    if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
        return path[len(root_path) :]
    return path
