"""The arithmetic of the three strategies that count hits in time.

The semantics are those of the package ``limits``, except that a refused hit never counts. The state
of a bucket is a tuple of numbers, which a store keeps without reading it; ``()`` is the state of an
empty bucket. Times are seconds on the store's clock.

:fixed window: ``(started, count)``
:sliding window counter: ``(index, current, previous)``, where window ``index`` begins at
    ``index * window``
:moving window: ``(time, units, time, units, ...)``, oldest first
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from keyguard.core.limits.limit import Strategy

State: TypeAlias = tuple[Any, ...]

# A sliding or moving window has room just after the computed instant, not at it.
_JUST_AFTER = 1e-6

_NOTHING = (0, 0, 0)  # a sliding window counter of which nothing is counted


class Tally(NamedTuple):
    """The state of a bucket at an instant, as a decision needs it.

    Args:
        fits: Whether there was room for the cost.
        remaining: How much room is left.
        reset_after: Seconds until there is more room.
        retry_after: Seconds until there is room for the cost; 0 if there was.
        ends_at: The time until which the hit can be refunded, on the clock of the counter; 0 if
            that is not known.
    """

    fits: bool
    remaining: int
    reset_after: float
    retry_after: float
    ends_at: float = 0.0


_new = tuple[object, ...].__new__  # _new(Tally, (...)) takes half the time of Tally(...)


class Counting(NamedTuple):
    """One strategy.

    Args:
        look: From ``(state, amount, window, now, cost)`` to the tally; counts nothing.
        take: From ``(state, amount, window, now, cost)`` to the tally after the hit and the new
            state, which is the old one if there was no room.
        adjust: From ``(state, window, now, units, ends_at)`` to the new state, even if there is no
            room. Negative units are refunded from the hit whose tally had that ``ends_at``;
            positive ones are added to it.
        ends: From ``(state, window)`` to the time when the state no longer matters.
    """

    look: Callable[[State, int, int, float, int], Tally]
    take: Callable[[State, int, int, float, int], tuple[Tally, State]]
    adjust: Callable[[State, int, float, int, float], State]
    ends: Callable[[State, int], float]


def _fixed(state: State, window: int, now: float) -> tuple[float, int]:
    if state and now < state[0] + window:
        return state
    return now, 0


def _fixed_tally(started: float, count: int, amount: int, window: int, now: float) -> Tally:
    ends_at = started + window
    return Tally(True, max(0, amount - count), ends_at - now if count else 0.0, 0.0, ends_at)


def _fixed_look(state: State, amount: int, window: int, now: float, cost: int) -> Tally:
    started, count = _fixed(state, window, now)
    tally = _fixed_tally(started, count, amount, window, now)
    if count + cost <= amount:
        return tally
    wait = float(window) if cost > amount else started + window - now
    return tally._replace(fits=False, retry_after=wait)


def _fixed_take(
    state: State, amount: int, window: int, now: float, cost: int
) -> tuple[Tally, State]:
    started, count = _fixed(state, window, now)
    count += cost
    if count > amount:
        return _fixed_look(state, amount, window, now, cost), state
    return _fixed_tally(started, count, amount, window, now), (started, count)


def _fixed_adjust(state: State, window: int, now: float, units: int, ends_at: float) -> State:
    if units < 0 and now >= ends_at:
        return state  # that window is over
    started, count = _fixed(state, window, now)
    return started, max(0, count + units)


def _fixed_ends(state: State, window: int) -> float:
    return float(state[0] + window)


def _sliding(state: State, window: int, now: float) -> tuple[int, int, int]:
    index = int(now / window)
    if not state:
        return index, 0, 0
    known, current, previous = state
    if known == index:
        return index, current, previous
    if known == index - 1:
        return index, 0, current
    if known > index:  # the clock was set back
        return index, current, previous
    return index, 0, 0


def _sliding_reset(current: int, previous: int, window: int, left: float) -> float:
    if current and left >= window:  # its window begins now
        return 0.0
    if previous:
        return left % (window / previous)
    return left if current else 0.0


def _sliding_look(state: State, amount: int, window: int, now: float, cost: int) -> Tally:
    index, current, previous = _sliding(state, window, now)
    ends_at = (index + 1) * window
    left = ends_at - now
    room = amount - int(previous * left / window + current)
    reset = _sliding_reset(current, previous, window, left)
    tally = Tally(True, max(0, room), reset, 0.0, ends_at)
    if cost <= room:
        return tally
    if cost > amount:
        wait = float(window)
    elif current + cost <= amount:
        # enough of the previous window has slid out
        wait = left - (amount - cost - current + 1) * window / previous
    else:
        # enough of the current one has slid out of the next
        wait = left + max(0.0, window - (amount - cost + 1) * window / current)
    return tally._replace(fits=False, retry_after=max(0.0, wait) + _JUST_AFTER)


def _sliding_take(
    state: State, amount: int, window: int, now: float, cost: int
) -> tuple[Tally, State]:
    index, current, previous = state or _NOTHING
    ends_at = (index + 1) * window
    left = ends_at - now
    if left <= 0.0 or left > window:  # else the usual case, without a call
        index, current, previous = _sliding(state, window, now)
        ends_at = (index + 1) * window
        left = ends_at - now
    used = int(previous * left / window + current) if previous else current
    remaining = amount - cost - used
    if remaining < 0:
        return _sliding_look(state, amount, window, now, cost), state
    current += cost
    reset = _sliding_reset(current, previous, window, left) if previous or left >= window else left
    return _new(Tally, (True, remaining, reset, 0.0, ends_at)), (index, current, previous)


def _sliding_adjust(state: State, window: int, now: float, units: int, ends_at: float) -> State:
    if units < 0 and now >= ends_at:
        return state
    index, current, previous = _sliding(state, window, now)
    return index, max(0, current + units), previous


def _sliding_ends(state: State, window: int) -> float:
    return float((state[0] + 2) * window)


def _moving(state: State, window: int, now: float) -> State:
    first = 0
    while first < len(state) and state[first] < now - window:
        first += 2
    return state[first:] if first else state


def _moving_tally(log: State, amount: int, window: int, now: float) -> Tally:
    # A hit that is exactly as old as the window takes room but is not counted, as in ``limits``.
    seen = log[2:] if log and log[0] <= now - window else log
    started = seen[0] if seen else now
    remaining = max(0, amount - sum(seen[1::2]))
    return Tally(True, remaining, started + window - now, 0.0, now + window)


def _moving_look(state: State, amount: int, window: int, now: float, cost: int) -> Tally:
    log = _moving(state, window, now)
    tally = _moving_tally(log, amount, window, now)
    used = sum(log[1::2])
    if used + cost <= amount:
        return tally
    wait = float(window)
    if cost <= amount:
        for time, units in zip(log[::2], log[1::2], strict=True):
            used -= units
            if used + cost <= amount:
                wait = time + window - now + _JUST_AFTER
                break
    return tally._replace(fits=False, retry_after=wait)


def _moving_take(
    state: State, amount: int, window: int, now: float, cost: int
) -> tuple[Tally, State]:
    log = _moving(state, window, now)
    if sum(log[1::2]) + cost > amount:
        return _moving_look(state, amount, window, now, cost), state
    log = _logged(log, now, cost)
    return _moving_tally(log, amount, window, now), log


def _moving_adjust(state: State, window: int, now: float, units: int, ends_at: float) -> State:
    log = _moving(state, window, now)
    counted, first = ends_at - window + _JUST_AFTER, len(log)
    if units > 0:  # add to the hit, if the log still has it
        while first and now < ends_at:
            first -= 2
            if log[first] <= counted:
                if log[first] < counted - 2 * _JUST_AFTER:
                    break
                return (*log[: first + 1], log[first + 1] + units, *log[first + 2 :])
        return _logged(log, now, units)
    kept: list[Any] = []
    while first and units:  # from the newest hit that existed at that time
        first -= 2
        time, taken = log[first], log[first + 1]
        if time <= counted:
            back = min(taken, -units)
            taken, units = taken - back, units + back
        if taken:
            kept += (taken, time)
    return (*log[:first], *reversed(kept))


def _logged(log: State, now: float, units: int) -> State:
    if log and log[-2] == now:
        return (*log[:-1], log[-1] + units)
    return (*log, now, units)


def _moving_ends(state: State, window: int) -> float:
    return float(state[-2] + window) if state else 0.0


COUNTING = {
    Strategy.FIXED_WINDOW: Counting(_fixed_look, _fixed_take, _fixed_adjust, _fixed_ends),
    Strategy.SLIDING_WINDOW_COUNTER: Counting(
        _sliding_look, _sliding_take, _sliding_adjust, _sliding_ends
    ),
    Strategy.MOVING_WINDOW: Counting(_moving_look, _moving_take, _moving_adjust, _moving_ends),
}
