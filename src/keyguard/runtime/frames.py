"""What keeps a password out of the errors of a driver, which holds it in its frames."""

from __future__ import annotations

import sys
from types import TracebackType

__all__ = ["frameless"]


class frameless:  # noqa: N801 - used as a function is
    """Take its frames from whatever fails inside, and from all that it comes of.

    Drivers connect with a password, which reporters of errors that capture locals would show.
    What a failure says stays. An exception that the caller is handling keeps its frames: they are
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
            one = pending.pop()
            if one is not None and id(one) not in seen:
                seen.add(id(one))
                one.__traceback__ = None
                pending += [one.__cause__, one.__context__]
