"""An organization's days are those of a zone of the IANA database."""

from __future__ import annotations

import zoneinfo
from datetime import UTC
from typing import Any

import pytest

from keyguard import InvalidValueError
from keyguard.core.keys.time_zones import find_time_zone
from tests.stored import Stored
from tests.stores.records import organization

NO_NAMES = (
    *("", "utc", "europe/berlin", "/etc/passwd", "../UTC", "Europe/../UTC", "Europe//Berlin"),
    *("UTC\n", "UTC ", "Europe/Berlin\0", "Europe\\Berlin", "\u0415urope/Berlin", "A" * 65),
    *("posix/UTC", "right/UTC", "posixrules", None, 7, b"UTC"),
)
UNKNOWN = ("Europe", "Mars/Olympus", "A" * 64)


@pytest.mark.campaign(
    "memory-sync", "sqlite-sync", "postgresql-async", "mariadb-sync", "redis-async"
)
def test_an_organization_has_the_zone_utc_unless_it_has_another(anywhere: Stored) -> None:
    organizations = anywhere.guard.organizations
    assert organizations.get("acme").time_zone == "UTC"
    assert organizations.create("beta", time_zone="Asia/Kolkata").time_zone == "Asia/Kolkata"
    changed = organizations.update("beta", time_zone="America/St_Johns")
    assert organizations.get("beta") == changed
    assert changed.time_zone == "America/St_Johns"
    entry = anywhere.guard.audit.list(limit=1).items[0]
    assert (entry.before, entry.after) == (
        {"time_zone": "Asia/Kolkata"},
        {"time_zone": "America/St_Johns"},
    )


@pytest.mark.parametrize("name", [*NO_NAMES, *UNKNOWN], ids=repr)
def test_what_is_no_time_zone_is_refused_and_changes_nothing(stored: Stored, name: Any) -> None:
    before = stored.trail()
    with pytest.raises(InvalidValueError, match="time zone"):
        stored.guard.organizations.update("acme", time_zone=name)
    with pytest.raises(InvalidValueError, match="time zone"):
        stored.guard.organizations.create("other", time_zone=name)
    assert stored.trail() == before


@pytest.mark.parametrize("name", NO_NAMES, ids=repr)
def test_no_record_holds_what_can_t_be_a_zone(name: Any) -> None:
    with pytest.raises(InvalidValueError, match="time zone"):
        organization(1, time_zone=name)


def test_a_record_holds_a_zone_that_only_a_newer_database_knows() -> None:
    assert organization(1, time_zone="Mars/Olympus").time_zone == "Mars/Olympus"


def test_every_zone_of_the_database_is_taken() -> None:
    for name in sorted(zoneinfo.available_timezones() - {"localtime"}):
        assert find_time_zone(name) is (UTC if name == "UTC" else zoneinfo.ZoneInfo(name))


def test_utc_needs_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(zoneinfo, "ZoneInfo")
    assert find_time_zone("UTC") is UTC
