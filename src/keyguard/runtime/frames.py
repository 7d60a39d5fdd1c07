"""Keep secrets out of the frames of errors, which error reporters record with their locals."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


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


def hides_arguments(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a function that takes secrets, so that no frame of its exceptions holds them.

    Messages stay. The traceback keeps the caller's frames, and one frame without locals.

    Args:
        function: The function, such as one that reads peppers or the URL of a database.
    """

    @functools.wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        handled = sys.exception()
        try:
            return function(*args, **kwargs)
        except BaseException as failure:
            drop_frames(failure, handled)
            del args, kwargs, handled
            raise

    return call


def drop_frames(failure: BaseException | None, handled: BaseException | None) -> None:
    """Remove the frames of an exception, and of its causes and contexts.

    Args:
        failure: The failure.
        handled: An exception that keeps its frames, because the application is handling it.
    """
    seen = {id(handled)}
    pending: list[BaseException | None] = [failure]
    while pending:
        cause = pending.pop()
        if cause is not None and id(cause) not in seen:
            seen.add(id(cause))
            cause.__traceback__ = None
            pending += [cause.__cause__, cause.__context__]
            if isinstance(cause, BaseExceptionGroup):
                pending += cause.exceptions  # pyright: ignore[reportUnknownMemberType]
