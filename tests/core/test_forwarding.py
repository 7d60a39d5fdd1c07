"""Who a request is from, behind proxies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import InvalidValueError
from keyguard.core.http import trusted_proxies
from keyguard.core.http.trusted_proxies import (
    FORWARDING_FIELDS,
    MOST_BYTES,
    MOST_ITEMS,
    TrustedProxies,
)
from keyguard.core.identity.addresses import Client

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8:ffff::/48"])
PROXY = "10.0.0.1"


def client(
    peer: str | None = PROXY,
    *,
    proxies: TrustedProxies = PROXIES,
    secure: bool = False,
    **fields: Any,
) -> Client | None:
    lines = {
        name.replace("_", "-"): [value] if isinstance(value, str) else value
        for name, value in fields.items()
    }
    return proxies.client(peer, lines, secure=secure)


def test_without_a_proxy_the_peer_is_the_client() -> None:
    assert client("192.0.2.7") == Client("192.0.2.7", False)
    assert client("192.0.2.7", secure=True) == Client("192.0.2.7", True)
    assert client() == Client(PROXY, False)


@pytest.mark.parametrize(
    "fields",
    [
        {"forwarded": "for=10.0.0.9;proto=https"},
        {"x_forwarded_for": "198.51.100.1", "x_forwarded_proto": "https"},
        {"forwarded": "nonsense"},
    ],
)
def test_who_is_no_trusted_proxy_is_not_believed(fields: dict[str, str]) -> None:
    assert client("192.0.2.7", **fields) == Client("192.0.2.7", False)


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("6.6.6.6, 198.51.100.1, 10.0.0.9", "198.51.100.1"),
        ("6.6.6.6,198.51.100.1,10.0.0.9,10.0.0.8", "198.51.100.1"),
        (["6.6.6.6", "198.51.100.1, 10.0.0.9"], "198.51.100.1"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("198.51.100.1:4711", "198.51.100.1"),
        ("::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("2001:db8:0:0:0:0:0:1, 2001:db8:ffff::7", "2001:db8::1"),
        ("::1%eth0", "::1"),
        ("unknown", "unknown"),
        (" 198.51.100.1 ", "198.51.100.1"),
        ("", PROXY),
        ("what a client wrote!, 198.51.100.1", "198.51.100.1"),
    ],
)
def test_x_forwarded_for_is_walked_from_the_right(value: str, address: str) -> None:
    assert client(x_forwarded_for=value) == Client(address, False)


@pytest.mark.parametrize(
    ("value", "address", "secure"),
    [
        ("for=198.51.100.1", "198.51.100.1", False),
        ("for=6.6.6.6;proto=https, for=198.51.100.1;proto=http", "198.51.100.1", False),
        ("for=198.51.100.1;proto=https, for=10.0.0.9;proto=http", "198.51.100.1", True),
        ('For="[2001:db8::1]:4711";Proto=HTTPS;By=203.0.113.43;host=h', "2001:db8::1", True),
        ("for=[2001:db8::1]", "2001:db8::1", False),
        ('for="198.51.100.1:80"', "198.51.100.1", False),
        ('for="\\198.51.100.1"', "198.51.100.1", False),
        ("for=_hidden", "_hidden", False),
        ('for="_hidden:_port"', "_hidden:_port", False),
        ("for=unknown;proto=https", "unknown", True),
        ("by=10.0.0.1;for=198.51.100.1 ; proto=https", "198.51.100.1", True),
        (["for=6.6.6.6", "for=198.51.100.1"], "198.51.100.1", False),
        (["for=198.51.100.1", "by=10.0.0.1"], PROXY, False),
        ("for=6.6.6.6;proto=https, by=10.0.0.1;host=api", PROXY, False),
        ("for=6.6.6.6;proto=https, ", PROXY, False),
        ("proto=https", PROXY, True),
        ("", PROXY, False),
        (",,;", PROXY, False),
    ],
)
def test_forwarded_is_walked_from_the_right(value: str, address: str, secure: bool) -> None:
    assert client(forwarded=value) == Client(address, secure)


@pytest.mark.parametrize(
    ("addresses", "schemes", "secure"),
    [
        ("198.51.100.1", "https", True),
        ("198.51.100.1", "HTTPS", True),
        ("198.51.100.1", "wss", True),
        ("198.51.100.1", "http", False),
        ("198.51.100.1, 10.0.0.9", "https, https", True),
        ("198.51.100.1, 10.0.0.9", "https, http", False),
        ("198.51.100.1, 10.0.0.9", "http, https", False),
        ("6.6.6.6, 198.51.100.1, 10.0.0.9", "https", True),
        ("6.6.6.6, 198.51.100.1, 10.0.0.9", "https, http", False),
        ("", "https", True),
        ("", "https, http", False),
    ],
)
def test_the_scheme_is_that_of_the_client_s_connection(
    addresses: str,
    schemes: str,
    secure: bool,
) -> None:
    found = client(x_forwarded_for=addresses, x_forwarded_proto=schemes)
    assert found is not None
    assert found.secure is secure


def test_a_proxy_that_says_nothing_of_the_scheme_was_asked_as_it_asks() -> None:
    assert client(secure=True, x_forwarded_for="198.51.100.1") == Client("198.51.100.1", True)
    assert client(secure=True, forwarded="for=198.51.100.1") == Client("198.51.100.1", True)


@pytest.mark.parametrize(
    "fields",
    [
        {"forwarded": "for=198.51.100.1", "x_forwarded_for": "198.51.100.2"},
        {"forwarded": "for=198.51.100.1;proto=https", "x_forwarded_proto": "http"},
        {"forwarded": "for=6.6.6.6", "x_forwarded_for": "198.51.100.1, 10.0.0.9"},
        {"forwarded": "for=_hidden", "x_forwarded_for": "198.51.100.1"},
        # One that a proxy sets, beside one that it passes on from the client.
        {"forwarded": "proto=https", "x_forwarded_for": "198.51.100.1"},
        {"forwarded": "for=198.51.100.1;proto=https", "x_forwarded_for": "198.51.100.1"},
        {"forwarded": "for=198.51.100.1", "x_forwarded_proto": "http"},
    ],
)
def test_fields_that_disagree_are_refused(fields: dict[str, str]) -> None:
    assert client(**fields) is None


def test_fields_that_agree_are_believed() -> None:
    found = client(
        forwarded='for="[2001:db8::1]";proto=https',
        x_forwarded_for="2001:DB8:0::1",
        x_forwarded_proto="https",
    )
    assert found == Client("2001:db8::1", True)
    assert client(forwarded="for=198.51.100.1", x_forwarded_for="198.51.100.1") == Client(
        "198.51.100.1", False
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"x_forwarded_for": "garbage!"},
        {"x_forwarded_for": "198.51.100"},
        {"x_forwarded_for": "198.51.100.1, <script>"},
        {"x_forwarded_for": "192.0.2.66, "},
        {"x_forwarded_for": ["192.0.2.66", ""]},
        {"x_forwarded_for": "1" * 100},
        {"x_forwarded_proto": "gopher"},
        {"forwarded": "for"},
        {"forwarded": "for=198.51.100.1 proto=https"},
        {"forwarded": 'for="198.51.100.1'},
        {"forwarded": 'for="evil, for=198.51.100.1'},
        {"forwarded": 'for="x", for="evil" "'},
        {"forwarded": "for=198.51.100.1;for=198.51.100.2"},
        {"forwarded": "for=300.0.0.1"},
        {"forwarded": "for=198.51.100.1;proto=ftp"},
        {"forwarded": "=198.51.100.1"},
    ],
)
def test_what_can_not_be_read_is_refused(fields: dict[str, str]) -> None:
    assert client(**fields) is None


def test_a_client_can_not_swallow_what_a_proxy_adds_with_an_open_quote() -> None:
    assert client(forwarded='for="6.6.6.6, for="[2001:db8::1]"') is None
    assert client(forwarded=['for="6.6.6.6', "for=198.51.100.1"]) is None


def test_a_peer_without_an_address_is_believed_only_where_that_is_said() -> None:
    fields = {"x_forwarded_for": "198.51.100.1", "x_forwarded_proto": "https"}
    for peer in (None, ""):
        assert client(peer, **fields) == Client(None, False)
        assert client(peer, proxies=TrustedProxies(["unix"]), **fields) == Client(
            "198.51.100.1", True
        )
    assert client("192.0.2.7", proxies=TrustedProxies(["unix"]), **fields) == Client(
        "192.0.2.7", False
    )


def test_a_mapped_peer_is_the_ipv4_one() -> None:
    assert client("::ffff:10.0.0.1", x_forwarded_for="198.51.100.1") == Client(
        "198.51.100.1", False
    )


@pytest.mark.parametrize(
    ("proxies", "why"),
    [
        ("10.0.0.0/8", r"write \['10\.0\.0\.0/8'\]"),
        (None, "trusted_proxies are a list"),
        (["10.0.0.1/8"], "no bit set after the prefix"),
        (["*"], "is not a valid network"),
        (["localhost"], "is not a valid network"),
    ],
)
def test_what_is_no_proxy_is_refused(proxies: Any, why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        TrustedProxies(proxies)


def test_no_proxies_are_false() -> None:
    assert not TrustedProxies()
    assert TrustedProxies(["unix"])
    assert TrustedProxies(["::1", "unix", "10.0.0.1"]).names == ("10.0.0.1/32", "::1/128", "unix")


@given(
    st.dictionaries(
        st.sampled_from(FORWARDING_FIELDS),
        st.lists(st.text(alphabet='for=proto;,"\\ 10.:[]_hx\t\x00é', max_size=60), max_size=3),
    ),
    st.sampled_from([PROXY, None, "192.0.2.7"]),
)
def test_nothing_that_arrives_raises(fields: dict[str, list[str]], peer: str | None) -> None:
    found = PROXIES.client(peer, fields, secure=False)
    if peer != PROXY:
        assert found == Client(peer, False)


@given(st.lists(st.ip_addresses(v=4).map(str), max_size=6), st.integers(0, 3))
def test_what_a_client_writes_is_never_reached(claims: list[str], hops: int) -> None:
    chain = [*claims, "198.51.100.1", *["10.0.0.9"] * hops]
    assert client(x_forwarded_for=", ".join(chain)) == Client("198.51.100.1", False)
    assert client(forwarded=", ".join(f"for={one}" for one in chain)) == Client(
        "198.51.100.1", False
    )


@pytest.mark.parametrize("field", ["forwarded", "x_forwarded_for", "x_forwarded_proto"])
def test_a_field_is_read_up_to_its_bounds_and_not_beyond(field: str) -> None:
    item = {
        "forwarded": "for=10.0.0.9;proto=https",
        "x_forwarded_for": "10.0.0.9",
        "x_forwarded_proto": "https",
    }[field]
    for most in ([item] * MOST_ITEMS, [", ".join([item] * MOST_ITEMS)], [item.ljust(MOST_BYTES)]):
        assert client(**{field: most}) is not None
    for more in (
        [item] * (MOST_ITEMS + 1),
        [", ".join([item] * (MOST_ITEMS + 1))],
        [item.ljust(MOST_BYTES + 1)],
        [item.ljust(MOST_BYTES // 2), item.ljust(MOST_BYTES // 2 + 1)],
    ):
        assert client(**{field: more}) is None
        assert client("192.0.2.7", **{field: more}) == Client("192.0.2.7", False)


def test_nothing_of_a_field_that_is_too_long_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("read")

    for name in ("_read_forwarded", "_read_older"):
        monkeypatch.setattr(trusted_proxies, name, read)
    for value in (
        "for=1.1.1.1," * 90_000,
        'for="' + "\\" * 1_000_000,
        " " * 1_000_000,
        ";" * 1_000_000,
        "a" * 1_000_000,
    ):
        assert client(forwarded=value) is None
        assert client(x_forwarded_for=value) is None
