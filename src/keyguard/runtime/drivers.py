"""The two ways to run a flow. They carry answers and hold no rules.

``run`` and ``arun`` serve both the decisions of :mod:`keyguard.core` (whose effects the guard
performs) and the operations of the SQL store (whose statements a connection performs).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

Question = TypeVar("Question")
Result = TypeVar("Result")


def run(flow: Generator[Question, Any, Result], perform: Callable[[Question], Any]) -> Result:
    """Run a flow to its end.

    Args:
        flow: The flow; it is closed in any case.
        perform: Answers one question; what it raises is raised inside the flow.

    Returns:
        What the flow returns.
    """
    # What perform raises is caught apart from what the flow raises: a StopIteration that leaks
    # out of a store must never look like the flow's return value.
    try:
        question = next(flow)
        while True:
            try:
                answer = perform(question)
            except BaseException as failure:  # noqa: BLE001 - the flow decides what it means
                question = flow.throw(failure)
            else:
                question = flow.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        flow.close()


async def arun(
    flow: Generator[Question, Any, Result], perform: Callable[[Question], Awaitable[Any]]
) -> Result:
    """Run a flow to its end, awaiting each answer; else like :func:`run`."""
    try:
        question = next(flow)
        while True:
            try:
                answer = await perform(question)
            except BaseException as failure:  # noqa: BLE001 - the flow decides what it means
                question = flow.throw(failure)
            else:
                question = flow.send(answer)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    finally:
        flow.close()
