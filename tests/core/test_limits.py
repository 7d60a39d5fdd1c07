"""Limits as they are written, and what they apply to."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import parse_many

from keyguard import InvalidValueError, Limit, Principal, Request, Strategy, rate_limit
from keyguard.core.identity.addresses import client_of
from keyguard.core.identity.scopes import ScopeGrant
from keyguard.core.limits.charges import (
    NO_LIMITS,
    AppliedLimits,
    _bucket,
    failure_charges,
    policy_field,
    route_charges,
)
from keyguard.core.limits.limit import (
    RouteLimit,
    parse_limit,
    read_limits,
)
from keyguard.core.limits.stored import dump_limits, load_limits


def principal(number: int = 1, organization: str = "org_1") -> Principal:
    return Principal(
        key_id=f"key{number}",
        family=f"fam_{number}",
        organization=organization,
        grant=ScopeGrant(frozenset()),
        metadata={},
    )


def no_request() -> Request:
    raise AssertionError("the request was asked for")


# The notation


@pytest.mark.parametrize(
    ("text", "amount", "window"),
    [
        ("100/minute", 100, 60),
        ("100 per minute", 100, 60),
        ("1 PER Second", 1, 1),
        ("  5 / 10 seconds ", 5, 10),
        ("10000/day", 10_000, 86_400),
        ("7 per 2 hours", 7, 7_200),
        ("3/month", 3, 2_592_000),
        ("3/year", 3, 31_104_000),
        ("30/minute", 30, 60),
        ("5per10minutes", 5, 600),
        (f"5{' ' * 2000}per{' ' * 2000}day", 5, 86_400),
    ],
)
def test_a_rate_is_read(text: str, amount: int, window: int) -> None:
    [rate] = Limit("a", text).rates
    assert (rate.amount, rate.window) == (amount, window)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not a valid rate; one looks like"),
        ("minute", "is not a valid rate"),
        ("100", "is not a valid rate"),
        ("100/fortnight", "is not a valid rate"),
        ("1.5/minute", "is not a valid rate"),
        ("-1/minute", "is not a valid rate"),
        ("100/minute;", "is not a valid rate"),
        ("٣/minute", "is not a valid rate"),
        ("x" * 500, "is not a valid rate"),
        ("0/minute", "lets nothing through"),
        ("5/0 seconds", "lets nothing through"),
        ("5 per 00day", "lets nothing through"),
        ("9/day; 5/0 seconds", "lets nothing through"),
        (";".join(["1/second"] * 200), "is not a valid rate"),
        ("1" * 5000 + "/day", "is not a valid rate"),
        ("5/\u017fecond", "is not a valid rate"),
        ("1000000000001/day", "too large to mean anything"),
        ("1/2 years", "too large to mean anything"),
        ("5/minute; 6 per 60 seconds", "two rates for one window"),
        (100, "a rate is a string"),
        (None, "a rate is a string"),
    ],
)
def test_what_is_no_rate_is_refused_in_one_sentence(text: Any, says: str) -> None:
    for refuse in (
        lambda: Limit("a", text),
        lambda: rate_limit(text),
        lambda: read_limits([text], "key"),
    ):
        with pytest.raises(InvalidValueError, match=says) as refusal:
            refuse()
        assert len(str(refusal.value)) < 250
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"name": ""}, "is not a valid name of a limit"),
        ({"name": "a b"}, "is not a valid name of a limit"),
        ({"name": 'a"b'}, "is not a valid name of a limit"),
        ({"name": "x" * 65}, "is not a valid name of a limit"),
        ({"name": None}, "is not a valid name of a limit"),
        ({"per": "client"}, "per 'key', 'organization' or 'address'"),
        ({"per": None}, "per 'key', 'organization' or 'address'"),
        ({"strategy": "leaky-bucket"}, "a limit's strategy is one of"),
        ({"enforce": 1}, "enforce takes True or False"),
        ({"rate": "10001/minute", "strategy": "moving-window"}, "keeps every hit"),
    ],
)
def test_what_is_no_limit_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        Limit(**{"name": "a", "rate": "1/minute"} | fields)


def test_the_notation_is_that_of_the_package() -> None:
    for text in ("100/minute", "10 per second; 10000 per day", "5/10 hours|9/2months,1/year"):
        items = parse_many(text)
        assert [(rate.amount, rate.window) for rate in Limit("a", text).rates] == [
            (item.amount, item.get_expiry()) for item in items
        ]


def test_a_limit_of_several_rates_is_called_by_each_window() -> None:
    limit = Limit("burst", "10 per second; 1000/5 minutes")
    assert [name for name, _ in limit.policies()] == ["burst-second", "burst-5-minutes"]
    assert [name for name, _ in Limit("burst", "10/second").policies()] == ["burst"]


def test_rates_without_a_name_are_called_by_whom_they_count() -> None:
    assert read_limits("10 per second; 1000 per day", "key") == (
        Limit("key-second", "10/second"),
        Limit("key-day", "1000/day"),
    )
    assert read_limits(["5/minute"], "organization") == (
        Limit("organization-minute", "5/minute", per="organization"),
    )


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (["1/minute", "2/minute"], "two limits named 'key-minute'"),
        ([Limit("a", "1/minute"), Limit("a", "1/day")], "two limits named 'a'"),
        (["1/minute", 5], "a rate is a string"),
        ({"a": "1/minute"}, "takes a list of limits"),
        (5, "takes a list of limits"),
        ([Limit(f"l{n}", "1/minute") for n in range(7)], "at most 6 limits"),
        ([Limit("f", "1/day", per=lambda who, request: "")], "can't be stored"),
    ],
)
def test_a_list_that_is_none_of_limits_is_refused(limits: Any, says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        read_limits(limits, "key", stored=True)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100/minute", Limit("key-minute", "100/minute")),
        ("daily=5000/day", Limit("daily", "5000/day")),
        (" daily = 5000/day ", Limit("daily", "5000/day")),
        ("burst=1/second;9/minute", Limit("burst", "1/second;9/minute")),
    ],
)
def test_a_limit_is_read_as_people_write_it(text: str, limit: Limit) -> None:
    assert parse_limit(text, "key") == limit


@pytest.mark.parametrize("text", ["", "=", "=1/day", "a=", "1/second;9/minute", "a=b=c"])
def test_what_people_write_wrong_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_limit(text, "key")


LIMITS = st.lists(
    st.builds(
        Limit,
        st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
        st.sampled_from(["1/second", "5 per 2 hours; 9/day", "10000/minute"]),
        per=st.sampled_from(["key", "organization", "address"]),
        strategy=st.sampled_from(Strategy),
        enforce=st.booleans(),
    ),
    unique_by=lambda limit: limit.name,
    max_size=5,
).map(tuple)


@given(LIMITS)
def test_stored_limits_come_back_as_they_were(limits: tuple[Limit, ...]) -> None:
    text = dump_limits(limits)
    assert text.isascii()
    assert load_limits(text) == limits


@pytest.mark.parametrize("text", ["", "{}", "[1]", '["1/minute"', '[{"name": "a"}]', "[[]]", "5"])
def test_what_is_no_stored_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the store says whose it was
        load_limits(text)


@pytest.mark.parametrize("cost", [0, -1, True, 1.5, "1", None, 10**13])
def test_a_cost_that_is_none_is_refused(cost: Any) -> None:
    with pytest.raises(InvalidValueError, match="a cost is a whole number"):
        rate_limit("1/minute", cost=cost)


def test_a_whole_limit_says_itself_what_it_is() -> None:
    limit = Limit("a", "1/minute")
    for options in ({"name": "b"}, {"per": "address"}, {"enforce": False}):
        with pytest.raises(InvalidValueError, match="a Limit has its own name"):
            rate_limit(limit, **options)  # type: ignore[arg-type]


# What applies


def test_a_later_level_takes_the_place_of_an_earlier_one_by_name() -> None:
    defaults = (Limit("a", "1/minute"), Limit("b", "1/minute"), Limit("c", "1/minute"))
    organization = (Limit("b", "2/minute", per="organization"), Limit("c", "2/minute"))
    key = (Limit("c", "3/minute"),)
    applied = AppliedLimits.of(principal(), defaults, organization, key)
    assert policy_field(applied.charges) == '"a";q=1;w=60, "b";q=2;w=60, "c";q=3;w=60'


def test_who_has_no_limits_has_none_that_apply() -> None:
    assert AppliedLimits.of(principal(), (), ()) == NO_LIMITS


def test_buckets_are_known_beforehand_where_they_do_not_depend_on_the_request() -> None:
    applied = AppliedLimits.of(principal(), read_limits("1/minute", "key"))
    assert applied.of_request(principal(), no_request) is applied.charges


def test_a_family_shares_its_count_and_others_have_their_own() -> None:
    limit = [Limit("a", "1/minute")]
    keys = {
        AppliedLimits.of(principal(number, organization), limit).charges[0].key
        for number in (1, 2)
        for organization in ("org_1", "org_2")
    }
    assert len(keys) == 4
    [again] = AppliedLimits.of(principal(), limit).charges
    assert again.key in keys


def test_a_changed_amount_keeps_the_count_and_another_window_does_not() -> None:
    def bucket(rate: str, **fields: Any) -> str:
        [charge] = AppliedLimits.of(principal(), [Limit("a", rate, **fields)]).charges
        return charge.key

    assert bucket("1/minute") == bucket("9/minute")
    assert bucket("1/minute") != bucket("1/hour")
    assert bucket("1/minute") != bucket("1/minute", strategy="fixed-window")
    assert bucket("1/minute") != bucket("1/minute", per="organization")


def test_a_limit_does_not_apply_where_nobody_can_be_named() -> None:
    def request() -> Request:
        return Request(method="GET", path="/")

    limits = [
        Limit("a", "1/minute", per="address"),
        Limit("b", "1/minute", per=lambda who, request: None),
    ]
    assert AppliedLimits.of(principal(), limits).of_request(principal(), request) == ()


def test_a_function_that_returns_no_name_is_refused() -> None:
    def broken(who: Any, request: Request) -> Any:
        return 5

    applied = AppliedLimits.of(principal(), [Limit("b", "1/minute", per=broken)])
    with pytest.raises(
        InvalidValueError, match="limit 'b' is per a function, which must return a string"
    ):
        applied.of_request(principal(), lambda: Request(method="GET", path="/"))


def test_routes_of_one_name_share_a_count_and_others_do_not() -> None:
    def bucket(route: str) -> str:
        limits = [RouteLimit(limit=Limit("a", "1/minute"), route=route)]
        [charge] = route_charges(limits, principal(), no_request)
        return charge.key

    assert bucket("inference") == bucket("inference")
    assert bucket("inference") != bucket("other")


# The buckets' names

PARTS = st.lists(st.text(max_size=120), min_size=1, max_size=4)


@given(PARTS, PARTS)
def test_no_two_sets_of_parts_give_one_name(one: list[str], other: list[str]) -> None:
    assert (_bucket(*one) == _bucket(*other)) == (one == other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "b:c"), ("a:b", "c")),
        (("a", "b/c"), ("a/b", "c")),
        (("a", "", "b"), ("a", "-", "b")),
        (("a}", "b"), ("a", "}b")),
        (("a", "%3A"), ("a", ":")),
        (("a", "~x"), ("a", "%7Ex")),
    ],
)
def test_parts_that_look_alike_give_two_names(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert _bucket(*one) != _bucket(*other)


@given(PARTS)
def test_a_name_is_short_ascii_in_the_slot_of_its_owner(parts: list[str]) -> None:
    name = _bucket(*parts)
    assert name.isascii()
    assert name.isprintable()
    assert " " not in name
    assert len(name) <= 255
    assert name.startswith("keyguard:{")
    assert name.count("{") == name.count("}") == 1


def test_failures_have_a_bucket_of_the_client() -> None:
    limit = Limit("failures", "30/minute", per="address")
    [one] = failure_charges(limit, "2001:db8::1")
    [same] = failure_charges(limit, "2001:db8::2")
    [other] = failure_charges(limit, "192.0.2.7")
    assert one.key == same.key != other.key


def test_the_policy_field_names_every_policy() -> None:
    charges = AppliedLimits.of(principal(), read_limits("1/minute;5/day", "key")).charges
    assert policy_field(charges) == '"key-minute";q=1;w=60, "key-day";q=5;w=86400'


# Addresses


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::ffff:c000:207", "192.0.2.7"),
        ("2001:DB8:0:0:1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("testclient", "testclient"),
        ("", ""),
        ("192.0.2.7:50001", "192.0.2.7"),
        ("[2001:db8::5]:443", "2001:db8::/64"),
        ("[::1]", "::/64"),
        ("1.2.3", "1.2.3"),
        ("x" * 200, "x" * 64),
        ("1:2:not", "1:2:not"),
    ],
)
def test_an_address_stands_for_a_client(address: str, client: str) -> None:
    assert client_of(address) == client


def test_a_long_subject_is_not_kept_and_meets_no_other() -> None:
    limit = Limit("team", "9/minute", per=lambda _, request: request.headers["x-team"])
    keys = set()
    subjects = ["x" * 30_000 + last for last in "ab"]
    subjects += ["~" + sha256(one.encode()).hexdigest() for one in subjects]
    for subject in subjects:
        request = Request(method="GET", path="/", headers={"x-team": subject})
        route = RouteLimit(limit=limit, route="r")
        (charge,) = route_charges([route], principal(), lambda request=request: request)
        assert len(charge.key) <= 255
        keys.add(charge.key)
    assert len(keys) == 4
