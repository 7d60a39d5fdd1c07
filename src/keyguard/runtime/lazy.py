"""Modules that some services never need, imported at their first use.

asyncio takes about as long to import as all of keyguard, and sync code does not use it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["Lazy", "asyncio"]


class Lazy(ModuleType):
    """A stand-in that becomes the module at its first use, and then is as fast.

    Args:
        name: The module's full name.
    """

    def __getattr__(self, name: str) -> Any:
        # Threads may come here together: each does the same, without a lock.
        self.__dict__.update(vars(import_module(self.__name__)))
        self.__class__ = ModuleType  # type: ignore[assignment]  # later look-ups do not come here
        return getattr(self, name)


if TYPE_CHECKING:
    import asyncio
else:
    asyncio = Lazy("asyncio")
