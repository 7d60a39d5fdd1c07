"""Keys that work from some networks only."""

from __future__ import annotations

from typing import Any

import pytest

from keyguard import InvalidValueError, Reason
from tests.stored import Stored

ANYWHERE_ELSE = ["192.0.3.1", "198.51.100.1", "2001:db9::1", "::ffff:198.51.100.1", None, "", "x"]


@pytest.mark.parametrize(
    ("networks", "inside"),
    [
        (["192.0.2.0/24"], ["192.0.2.0", "192.0.2.255", "::ffff:192.0.2.7", "192.0.2.7:4711"]),
        (["2001:db8::/32"], ["2001:db8::1", "2001:db8:ffff::", "[2001:db8::1]:443"]),
        (["192.0.2.7", "2001:db8::7"], ["192.0.2.7", "2001:db8::7"]),
        (["::ffff:192.0.2.0/120"], ["192.0.2.9"]),
    ],
)
def test_a_key_works_from_its_networks_only_warm_and_cold(
    stored: Stored, networks: list[str], inside: list[str]
) -> None:
    issued = stored.issue(allowed_networks=networks)

    for _ in range(2):
        for address in inside:
            assert stored.lets_in(issued.token, address=address)
        for address in ANYWHERE_ELSE:
            decision = stored.refusal(issued.token, address=address)
            assert decision is Reason.ADDRESS_NOT_ALLOWED


def test_a_network_that_is_taken_away_is_felt_on_the_next_request(stored: Stored) -> None:
    issued = stored.issue(allowed_networks=["192.0.2.0/24", "198.51.100.0/24"])
    assert stored.lets_in(issued.token, address="198.51.100.1")

    stored.guard.keys.update(issued.key.id, allowed_networks=["192.0.2.0/24"])
    assert not stored.lets_in(issued.token, address="198.51.100.1")
    assert stored.lets_in(issued.token, address="192.0.2.1")

    stored.guard.keys.update(issued.key.id, allowed_networks=[])
    assert stored.lets_in(issued.token, address="198.51.100.1")
    assert stored.lets_in(issued.token)


def test_networks_are_kept_in_their_shortest_spelling_each_once(stored: Stored) -> None:
    key = stored.issue(
        allowed_networks=["2001:0DB8:0:0::/32", "192.0.2.7", "192.0.2.7/32", "2001:db8::/32"]
    ).key

    assert key.allowed_networks == ("192.0.2.7/32", "2001:db8::/32")
    assert stored.guard.keys.get(key.id) == key


@pytest.mark.parametrize(
    ("networks", "said"),
    [
        ("192.0.2.0/24", "are a list"),
        (b"192.0.2.0/24", "is not a valid network"),
        (7, "are a list"),
        (["192.0.2.1/24"], "no bit set after the prefix"),
        (["192.0.2.0/33"], "is not a valid network"),
        (["example.com"], "is not a valid network"),
        ([""], "is not a valid network"),
        ([7], "is not a valid network"),
        ([f"10.0.{n}.0/24" for n in range(101)], "at most 100"),
    ],
)
def test_what_is_no_network_makes_no_key(stored: Stored, networks: Any, said: str) -> None:
    with pytest.raises(InvalidValueError, match=said):
        stored.issue(allowed_networks=networks)
    assert len(stored.guard.keys.list()) == 0
