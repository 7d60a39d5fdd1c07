"""Keep a password out of the frames of a driver's errors."""

from __future__ import annotations

import sys
from types import TracebackType


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
        drop_frames(failure, self._handled)


def drop_frames(failure: BaseException | None, handled: BaseException | None) -> None:
    """Take the frames from a failure and from all that it comes of.

    Args:
        failure: The failure.
        handled: An exception that keeps its frames, as the application is handling it.
    """
    seen = {id(handled)}
    pending: list[BaseException | None] = [failure]
    while pending:
        cause = pending.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            cause.__traceback__ = None
            pending += [cause.__cause__, cause.__context__]
