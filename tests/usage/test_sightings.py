"""What keys were seen with is noted now and then, within bounds, and forgotten."""

from __future__ import annotations

from datetime import timedelta
from ipaddress import ip_address

import pytest

from keyguard.core.usage.sightings import Sighting, network_of
from keyguard.core.usage.values import Cell, Flush
from keyguard.runtime.sync import run_sync
from tests.usage.test_counts import ACME, Counted, principal
from tests.usage.test_flushes import Kept

DAY = timedelta(days=1)
OWNER = "net_0000000000000001"


def seen(counted: Counted) -> list[Cell]:
    return [cell for flush in counted.tell() for cell in flush.cells if cell.outcome == "seen"]


def test_a_sighting_is_noted_once_in_30_days_by_each_process() -> None:
    counted = Counted()
    noted = []
    for _ in range(60):
        for _ in range(3):
            counted.counts.see(principal(), Sighting.NETWORK, "192.0.2.0/24")
        noted += seen(counted)
        counted.clock.advance(DAY)

    assert len(noted) in (2, 3)
    assert {cell.organization for cell in noted} == {Sighting.NETWORK.owner(ACME)} == {OWNER}
    assert {(cell.key_id, cell.tag, cell.n) for cell in noted} == {
        ("1".zfill(16), "192.0.2.0/24", 1)
    }


def test_a_process_notes_a_bounded_number_of_sightings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keyguard.freshness.usage_counts.MOST_SEEN", 5)
    counted = Counted()
    for number in range(9):
        counted.counts.see(principal(), Sighting.NETWORK, f"10.0.{number}.0/24")

    assert len(seen(counted)) == 5


def test_where_no_store_takes_cells_nothing_is_noted() -> None:
    counted = Counted(keeps=False)
    counted.counts.see(principal(), Sighting.NETWORK, "192.0.2.0/24")

    assert counted.counts.pending() == 0
    assert seen(counted) == []


def test_metrics_count_no_sighting() -> None:
    counted = Counted()
    counted.counts.see(principal(), Sighting.NETWORK, "192.0.2.0/24")

    assert counted.counts.outcomes() == {"allowed": 0}


def test_sightings_are_forgotten_after_150_days() -> None:
    kept = Kept()
    start = kept.world.clock.now.replace(second=0)
    owner = Sighting.NETWORK.owner(kept.world.acme.id)
    cell = Cell(owner, start, "0" * 16, "fam_1", "seen", "192.0.2.0/24", 1, 0)
    run_sync(kept.usage.add(Flush("one", 1, start, (cell,))))
    kept.world.clock.advance(149 * DAY)
    kept.tidy()
    assert kept.usage._days[owner]
    kept.world.clock.advance(2 * DAY)

    kept.tidy()

    assert not kept.usage._days[owner]


@pytest.mark.parametrize(
    ("address", "network"),
    [("192.0.2.77", "192.0.2.0/24"), ("2001:db8:abcd:12::1", "2001:db8:abcd::/48")],
)
def test_the_network_of_a_client_is_a_24_or_a_48(address: str, network: str) -> None:
    assert network_of(ip_address(address)) == network
