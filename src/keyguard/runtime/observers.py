"""The observers of a guard. Without observers nothing is measured."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TypeAlias

from keyguard.core.access.decisions import Allow, Decision

CallObserver: TypeAlias = Callable[[str, str], AbstractContextManager[object]]
"""Is entered around a call of a store, with the operation and the kind of the database."""

UNOBSERVED = nullcontext()


@dataclass(slots=True, eq=False, repr=False)
class Observers:
    """The observers of one guard.

    Args:
        of_keys: Each is entered around a call of the key store.
        of_counters: Each is entered around a call of the counters across a network.
        of_requests: Each is called with the ids of the key and the organization of a request.
        of_beat: Each is called every few seconds by the guard's background work.
        of_end: Each is called when the guard is closed.
    """

    of_keys: tuple[CallObserver, ...] = ()
    of_counters: tuple[CallObserver, ...] = ()
    of_requests: tuple[Callable[[str, str], object], ...] = ()
    of_beat: tuple[Callable[[], object], ...] = ()
    of_end: tuple[Callable[[], object], ...] = ()

    def identify(self, decision: Decision) -> None:
        """Pass the key and organization of a request to observers, if its token is genuine."""
        named = decision.principal if isinstance(decision, Allow) else decision
        if named.key_id is not None and named.organization is not None:
            for tell in self.of_requests:
                tell(named.key_id, named.organization)

    def beat(self) -> None:
        """Call the observers after a few seconds, and when the guard's work ends."""
        _call(self.of_beat)

    def end(self) -> None:
        """Tell the observers that the guard is closed, and stop observing."""
        parting = self.of_end
        self.of_keys = self.of_counters = self.of_requests = self.of_beat = self.of_end = ()
        _call(parting)


def _call(functions: Iterable[Callable[[], object]]) -> None:
    for function in functions:
        with suppress(Exception):  # the guard's own work goes on
            function()


@contextmanager
def observed(observers: tuple[CallObserver, ...], store: object, operation: str) -> Generator[None]:
    """Call a store, and let the observers see the call.

    Args:
        observers: The observers.
        store: The store. If it has a ``system_name``, that is the kind of its database, by the
            names of OpenTelemetry.
        operation: The name of the call.
    """
    system = str(getattr(store, "system_name", ""))
    with ExitStack() as stack:
        for observe in observers:
            stack.enter_context(observe(operation, system))
        yield
