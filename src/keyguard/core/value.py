"""What the values of the core have in common."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Value"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Value:
    """A frozen dataclass that is compared, hashed and shown by its fields.

    ``dataclass`` would make these methods for each class, and compile them whenever a process
    imports keyguard. A value that is imported with the package takes them from here instead, and
    is declared with ``eq=False, repr=False``.
    """

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or other.__class__ is not self.__class__:
            return NotImplemented
        return self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash(
            tuple(
                getattr(self, field.name)
                for field in fields(self)
                if (field.compare if field.hash is None else field.hash)
            )
        )

    def __repr__(self) -> str:
        shown = (
            f"{field.name}={getattr(self, field.name)!r}" for field in fields(self) if field.repr
        )
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def _compared(self) -> tuple[object, ...]:
        return tuple(getattr(self, field.name) for field in fields(self) if field.compare)
