"""Keep a password out of the frames of a driver's errors."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["frameless"]


class frameless:  # noqa: N801 - it is used like a function
    """Remove the frames of any exception inside, and of its causes and contexts.

    A driver holds the password while it connects, and error reporters that capture locals would
    show it. Messages stay. An exception that the caller is handling keeps its frames, which are
    the application's.
    """

    __slots__ = ("_handled",)

    def __enter__(self) -> None:
        self._handled = sys.exception()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        failure: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        seen = {id(self._handled)}
        pending: list[BaseException | None] = [failure]
        while pending:
            exception = pending.pop()
            if exception is not None and id(exception) not in seen:
                seen.add(id(exception))
                exception.__traceback__ = None
                pending += [exception.__cause__, exception.__context__]
