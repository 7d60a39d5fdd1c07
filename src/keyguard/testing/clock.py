"""A clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from keyguard.exceptions import InvalidValueError, shown

__all__ = ["MovingClock"]


class MovingClock:
    """A clock that stands until the test moves it. It is a guard's ``clock``.

    Args:
        start: The time that it shows at first, with a time zone; by default the present time.

    Raises:
        InvalidValueError: The start is no time, or has no time zone.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = datetime.now(UTC) if start is None else start
        if not isinstance(self._now, datetime) or self._now.utcoffset() is None:
            raise InvalidValueError("a clock starts at a time with a time zone, such as UTC")
        self._uptime = 0.0

    def advance(self, span: timedelta) -> None:
        """Move the clock forward.

        Args:
            span: How far, at least 0.

        Raises:
            InvalidValueError: The span is negative, or no timedelta.
        """
        if not isinstance(span, timedelta):
            raise InvalidValueError(f"a clock advances by a timedelta, not {shown(span)}")
        if span < timedelta():
            raise InvalidValueError("a clock moves forward only")
        self._now += span
        self._uptime += span.total_seconds()

    def now(self) -> datetime:
        """Return the time that the clock shows."""
        return self._now

    def time(self) -> float:
        """Return the seconds since the epoch."""
        return self._now.timestamp()

    def monotonic(self) -> float:
        """Return the seconds by which the clock was moved."""
        return self._uptime
