"""Modules that not every service needs, imported at their first use.

asyncio takes about as long to import as all of keyguard, and sync code has no use for it.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["Lazy", "asyncio"]


class Lazy(ModuleType):
    """Stands for a module, and is as good as it, and as fast, from its first use on.

    Args:
        name: The module's full name.
    """

    def __getattr__(self, name: str) -> Any:
        # Threads may come here together: each does the same, and none holds a lock.
        self.__dict__.update(vars(import_module(self.__name__)))
        self.__class__ = ModuleType  # type: ignore[assignment]  # no look-up comes here any more
        return getattr(self, name)


if TYPE_CHECKING:
    import asyncio
else:
    asyncio = Lazy("asyncio")
