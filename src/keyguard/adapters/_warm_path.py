"""The warm path: a token that was verified before, on a path that asks for nothing else.

Most requests take it. It is one synchronous function that both pure adapters call before they start
anything else, and the only place where speed counts more than legibility.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

from keyguard.core.access.decisions import Allow
from keyguard.core.access.ports import Fingerprint
from keyguard.core.limits.charges import NO_LIMITS
from keyguard.request.state import RequestState

__all__ = ["Beginnings", "WarmPath"]


class Beginnings:
    """The paths and prefixes of paths that the warm path leaves alone.

    Args:
        paths: The paths.
        beginnings: The prefixes of other paths.
    """

    __slots__ = ("_beginnings", "_paths")

    def __init__(self, paths: frozenset[str], beginnings: tuple[str, ...]) -> None:
        self._paths = paths
        self._beginnings = beginnings

    def __contains__(self, path: object) -> bool:
        return path in self._paths or str(path).startswith(self._beginnings)


class WarmPath:
    """Recognizes tokens that the guard verified before.

    Args:
        recall: Looks an ``Authorization`` field up in the memory of verified tokens.
        public_paths: The paths that need no key, as the server spells them.
        closed: Whether every request has to be looked at more closely.
    """

    __slots__ = ("_closed", "_public_paths", "_recall")

    def __init__(
        self,
        recall: Callable[[bytes], Allow | Fingerprint | None],
        public_paths: Container[str],
        *,
        closed: bool,
    ) -> None:
        self._recall = recall
        self._public_paths = public_paths
        self._closed = closed

    def recognizes(
        self,
        request: RequestState,
        path: str,
        field: bytes | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> bool:
        """Let a request in if its token is known and its path needs nothing else.

        Args:
            request: The request. The decision is noted on it, or the fact that the token is not
                known.
            path: Its path, as the server spells it.
            field: Its ``Authorization`` field, if the server provides that alone.
            headers: All its fields otherwise, names in lower case.

        Returns:
            Whether the request was let in. If not, nothing is decided yet.
        """
        if self._closed or path in self._public_paths:
            return False
        if field is None:
            for name, value in headers:
                if name == b"authorization":
                    if field is not None:
                        return False
                    field = value
            if field is None:
                return False
        recall = self._recall  # a call of an attribute takes longer
        found = recall(field)
        if not isinstance(found, Allow):
            request.is_asked, request.missed = True, found
            return False
        request.allow = found
        if found.retires is not None:
            request.retires, request.adds_fields = found.retires, True
        if found.limits is not NO_LIMITS:
            request.due = True
        return True
