"""Event loops for tests that call async code from sync code."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ["event_loop"]


@contextmanager
def event_loop() -> Generator[asyncio.Runner]:
    """Run an event loop, and let it finish closing what was closed on it before it ends.

    A transport that was told to close is closed one turn of the loop later; without that turn it
    would be left to the collector, and the warning would hit whichever test comes after.
    """
    with asyncio.Runner() as runner:
        try:
            yield runner
        finally:
            runner.run(_finished())


async def _finished() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
