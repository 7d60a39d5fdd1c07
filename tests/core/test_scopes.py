"""Scopes: exact but for whole-segment wildcards, never by prefix or case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import InvalidValueError, ScopeCatalogue
from keyguard.core.identity.scopes import Requirement, ScopeGrant, parse_granted, parse_required

CATALOGUE = ScopeCatalogue(
    {"models:read": "Read", "models:write": "Write", "usage:read": "Usage", "admin": "All"},
    implies={"admin": ["models:write", "usage:read"], "models:write": ["models:read"]},
)

segments = st.text("abcdefgXYZ019-._", min_size=1, max_size=6)
names = st.lists(segments, min_size=1, max_size=3).map(":".join)


@pytest.mark.parametrize(
    ("granted", "scope", "covered"),
    [
        ("models:read", "models:read", True),
        ("models:read", "models:reader", False),
        ("models:reader", "models:read", False),
        ("models:read", "MODELS:READ", False),
        ("models", "models:read", False),
        ("models:*", "models:read", True),
        ("models:*", "models:", False),
        ("models:*", "models", False),
        ("models:*", "modelsx:read", False),
        ("models:*", "models:gpt:read", False),
        ("models:gpt:*", "models:gpt:read", True),
        ("*", "models:read", True),
        ("*", "admin", True),
    ],
)
def test_a_grant_covers_exactly_what_it_names(granted: str, scope: str, *, covered: bool) -> None:
    assert (scope in ScopeGrant(frozenset({granted}))) is covered


@given(names, names)
def test_two_different_names_never_cover_each_other(one: str, other: str) -> None:
    assert (other in ScopeGrant(frozenset({one}))) is (one == other)


@given(names, segments)
def test_a_wildcard_covers_one_segment_more_and_nothing_else(name: str, segment: str) -> None:
    grant = ScopeGrant(parse_granted([f"{name}:*"]))

    assert f"{name}:{segment}" in grant
    assert name not in grant
    assert f"{name}:{segment}:{segment}" not in grant


def test_something_that_is_no_string_is_in_no_grant() -> None:
    assert 7 not in ScopeGrant(frozenset({"*"}))


def test_a_requirement_takes_all_of_the_one_and_one_of_the_other() -> None:
    requirement = Requirement.of(["a", "b"], any_of=["c", "d"])

    assert requirement.met_by(ScopeGrant(frozenset({"a", "b", "d"})))
    assert not requirement.met_by(ScopeGrant(frozenset({"a", "b"})))
    assert not requirement.met_by(ScopeGrant(frozenset({"a", "c", "d"})))
    assert requirement.scopes == ("a", "b", "c", "d")


def test_implication_is_followed_to_its_end() -> None:
    assert CATALOGUE.implied_by(frozenset({"admin"})) == {
        "admin",
        "models:write",
        "models:read",
        "usage:read",
    }


def test_a_wildcard_brings_what_its_scopes_imply() -> None:
    catalogue = ScopeCatalogue({"a:one": "", "b": "", "c": ""}, implies={"a:one": ["b"]})

    assert catalogue.implied_by(frozenset({"a:*"})) == {"a:one", "b"}


def test_keys_with_the_same_scopes_share_one_grant_of_a_catalogue() -> None:
    catalogue = ScopeCatalogue({"admin": "", "a:read": ""}, implies={"admin": ["a:read"]})

    grant = catalogue.grant(frozenset({"admin"}))

    assert grant == ScopeGrant(frozenset({"admin"}), frozenset({"admin", "a:read"}))
    assert catalogue.grant(frozenset({"admin"})) is grant
    assert "a:read" not in catalogue.grant(frozenset({"other"}))


def test_a_catalogue_remembers_a_thousand_grants_at_most() -> None:
    catalogue = ScopeCatalogue({"a:read": ""})
    first = catalogue.grant(frozenset({"a:0"}))

    for number in range(1, 1001):
        catalogue.grant(frozenset({f"a:{number}"}))

    assert catalogue.grant(frozenset({"a:0"})) is not first


def test_implication_may_go_in_circles() -> None:
    catalogue = ScopeCatalogue({"a": "", "b": ""}, implies={"a": ["b"], "b": ["a"]})

    assert catalogue.implied_by(frozenset({"b"})) == {"a", "b"}


@pytest.mark.parametrize(
    "scope",
    ["", " ", "a b", 'a"b', "a\\b", "é", "a\n", "a" * 101, "models:r*", "*x", "**", ":*", 7],
)
def test_what_is_no_scope_is_not_granted(scope: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_granted([scope])


@pytest.mark.parametrize("scope", ["*", "models:*", "a b", ""])
def test_a_required_scope_is_exact(scope: str) -> None:
    with pytest.raises(InvalidValueError):
        parse_required([scope])


def test_a_string_is_no_list_of_scopes() -> None:
    with pytest.raises(InvalidValueError, match=r"write \['models:read'\]"):
        parse_granted("models:read")


def test_a_key_carries_at_most_a_hundred_scopes() -> None:
    with pytest.raises(InvalidValueError, match="at most 100"):
        parse_granted(f"s{n}" for n in range(101))


@pytest.mark.parametrize("scope", ["model:read", "models:*x", "nope:*", "Admin"])
def test_a_scope_outside_the_catalogue_is_refused_with_what_it_knows(scope: str) -> None:
    with pytest.raises(InvalidValueError, match="this service knows: admin, models:read"):
        CATALOGUE.check_granted([scope])


def test_a_wildcard_that_covers_something_of_the_catalogue_may_be_granted() -> None:
    CATALOGUE.check_granted(["*", "models:*"])


def test_a_catalogue_says_what_a_scope_is_for() -> None:
    assert CATALOGUE.describe("usage:read") == "Usage"
    assert list(CATALOGUE) == ["models:read", "models:write", "usage:read", "admin"]
    assert len(CATALOGUE) == 4


def test_an_implication_of_something_unknown_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="unknown scope 'b'"):
        ScopeCatalogue({"a": ""}, implies={"a": ["b"]})
