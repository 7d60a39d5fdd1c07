"""Makes modules and parts of objects at their first use, as some services never need them.

asyncio takes about as long to import as all of keyguard, and sync code does not use it.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["Lazy", "asyncio", "once"]


class Lazy(ModuleType):
    """A stand-in that becomes the module at its first use, and then is as fast.

    Args:
        name: The module's full name.
    """

    def __getattr__(self, name: str) -> object:
        # Threads may come here together: each does the same, without a lock.
        self.__dict__.update(vars(import_module(self.__name__)))
        self.__class__ = ModuleType  # type: ignore[assignment]  # later look-ups do not come here
        return getattr(self, name)


if TYPE_CHECKING:
    import asyncio
    from builtins import property as once  # pyright knows it as a member of protocols
else:
    asyncio = Lazy("asyncio")

    class once(cached_property):  # noqa: N801 - it is used like a function
        """Make a part of an object at its first use, and keep it as an attribute.

        If threads come together, each may make the part, but all get the same one. No lock is
        held, which a fork could leave taken.
        """

        def __get__(self, instance: object, owner: type | None = None) -> object:
            if instance is None:
                return self
            return vars(instance).setdefault(self.attrname, self.func(instance))
