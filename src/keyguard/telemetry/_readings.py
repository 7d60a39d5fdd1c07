"""Readings: what the guards of one process count, added up."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias
from weakref import WeakKeyDictionary

from keyguard.core.values import ORGANIZATION_ID
from keyguard.exceptions import ConfigurationError, InvalidValueError
from keyguard.guard import AsyncKeyguard, Keyguard
from keyguard.runtime.process import after_fork
from keyguard.telemetry._instruments import INSTRUMENTS, Instrument, Kind, Labels

MOST_ORGANIZATIONS = 50

AnyGuard: TypeAlias = Keyguard | AsyncKeyguard
Series: TypeAlias = tuple[Instrument, Labels]

_COMBINED: dict[Kind, Callable[[Iterable[float]], float]] = {
    Kind.SUM: sum,
    Kind.LARGEST: max,
    Kind.SMALLEST: min,
}


class Readings:
    """What the guards of one process count, added up.

    A counter never falls, because Prometheus would take that for a restart: not when a guard is
    closed or freed, and not while a guard corrects its counts. A guard that is freed is forgotten.
    """

    def __init__(self) -> None:
        self._told = WeakKeyDictionary[AnyGuard, defaultdict[Series, float]]()
        self._start_afresh()
        after_fork(self._start_afresh)

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._sums = defaultdict[Series, float](float)
        for told in self._told.values():
            told.clear()

    def join(self, guard: AnyGuard, organizations: Collection[str]) -> bool:
        """Read a guard from now on; return whether it is new.

        Args:
            guard: The guard.
            organizations: The ids of organizations whose requests are counted apart.

        Raises:
            ConfigurationError: The object is no guard.
            InvalidValueError: There are too many organizations, or one is not an id.
        """
        if not isinstance(guard, Keyguard | AsyncKeyguard):
            raise ConfigurationError(f"instrument takes a guard, not {type(guard).__name__}")
        wanted = frozenset(() if isinstance(organizations, str) else organizations)
        if isinstance(organizations, str) or not all(map(ORGANIZATION_ID.match, wanted)):
            raise InvalidValueError("organizations takes a list of ids of organizations")
        if len(wanted) > MOST_ORGANIZATIONS:
            raise InvalidValueError(
                f"metrics tell at most {MOST_ORGANIZATIONS} organizations apart, not {len(wanted)}"
            )
        guard.counts.tell_apart(wanted)
        with self._lock:
            is_new = guard not in self._told
            if is_new:
                self._told[guard] = defaultdict(float)
            return is_new

    def leave(self, guard: AnyGuard) -> bool:
        """Read a guard for the last time; return whether it was the last."""
        self.take()
        with self._lock:
            self._told.pop(guard, None)
            return not self._told

    def take(self) -> Mapping[Series, float]:
        """Return the present values of all guards together; nothing if there is no guard."""
        gauges: dict[Series, list[float]] = {}
        with self._lock:
            guards = tuple(self._told.items())
            for guard, told in guards:
                statistics = guard.statistics()
                for instrument in INSTRUMENTS:
                    for labels, value in instrument.read(statistics):
                        series = instrument, labels
                        if instrument.kind is not Kind.COUNTER:
                            gauges.setdefault(series, []).append(value)
                        else:  # even if it is 0, so that its first rise is seen
                            more = max(0.0, value - told[series])
                            told[series] += more
                            self._sums[series] += more
            combined = {
                series: _COMBINED[series[0].kind](found) for series, found in gauges.items()
            }
            return {**self._sums, **combined} if guards else {}
