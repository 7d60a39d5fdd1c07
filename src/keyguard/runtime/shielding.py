"""Completes work even if the task that waits for it is cancelled meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from keyguard.runtime.lazy import asyncio

__all__ = ["shielded"]

Result = TypeVar("Result")


async def shielded(work: Coroutine[object, None, Result]) -> Result:
    """Complete work, then let a cancellation that came meanwhile go on.

    Args:
        work: The work. It must have a deadline of its own, because nothing else ends it.

    Returns:
        What the work returns, unless the task was cancelled meanwhile.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return await _shielded_on_trio(work)
    task, cancellation = loop.create_task(work), None
    with _shield_from_scopes():
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as cancelled:
                cancellation = cancelled
    if cancellation is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # or asyncio would report that the exception was never retrieved
    raise cancellation


async def _shielded_on_trio(work: Coroutine[object, None, Result]) -> Result:
    import trio

    with trio.CancelScope(shield=True):
        return await work
    raise AssertionError  # nobody cancels this scope; type checkers can't know


def _shield_from_scopes() -> AbstractContextManager[object]:
    """Return a shield from anyio's scopes, which else cancel again at each turn of the loop."""
    anyio = sys.modules.get("anyio")
    return nullcontext() if anyio is None else anyio.CancelScope(shield=True)
