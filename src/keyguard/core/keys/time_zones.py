"""Time zones by their names in the IANA database."""

from __future__ import annotations

from datetime import UTC, tzinfo

from keyguard.core.values import check_time_zone
from keyguard.exceptions import InvalidValueError, shown


def find_time_zone(name: object) -> tzinfo:
    """Return the time zone of a name. ``UTC`` works without a database.

    Args:
        name: Its name in the IANA database, such as ``Europe/Berlin``.

    Raises:
        InvalidValueError: The name is malformed, or this machine's database has no such zone.
    """
    if name == "UTC":
        return UTC
    zone = check_time_zone(name)
    from zoneinfo import ZoneInfo  # most services never need it

    try:
        return ZoneInfo(zone)
    except (OSError, ValueError, LookupError):  # LookupError: ZoneInfoNotFoundError
        raise InvalidValueError(
            f"no time zone {shown(name)} is known here: check its spelling, or bring the time zone "
            "database up to date (the package tzdata)"
        ) from None
