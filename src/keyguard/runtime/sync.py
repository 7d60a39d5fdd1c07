"""Run a coroutine of the core in sync code.

The core is written once, as ``async def``. In sync code its ports never suspend, so a coroutine
runs to its end at the first ``send``: no event loop and no thread takes part.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TypeVar

Result = TypeVar("Result")


def run_sync(coroutine: Coroutine[object, None, Result]) -> Result:
    """Run a coroutine whose ports never suspend, and return its result.

    Args:
        coroutine: The coroutine; it is finished or closed in any case.

    Raises:
        RuntimeError: A port suspended. That is an error in keyguard or in a store's port.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed types it as Any
    coroutine.close()
    raise RuntimeError("a port of sync code suspended; it must return at once")
