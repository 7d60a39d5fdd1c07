"""The grammar of the Authorization field."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import Reason, Secret
from keyguard.core.access.credentials import parse_authorization


@pytest.mark.parametrize(
    "field",
    [
        "Bearer abc",
        "bearer abc",
        "BEARER abc",
        "Bearer    abc",
        "  Bearer abc\t ",
        b"Bearer abc",
    ],
)
def test_a_bearer_token_is_found_however_it_is_legally_spelt(field: str | bytes) -> None:
    token = parse_authorization([field])

    assert isinstance(token, Secret)
    assert token.reveal() == "abc"


@pytest.mark.parametrize("token", ["a", "A-Z.0_9~+/", "abc=", "abc=="])
def test_every_b64token_is_a_token(token: str) -> None:
    found = parse_authorization([f"Bearer {token}"])

    assert isinstance(found, Secret)
    assert found.reveal() == token


@pytest.mark.parametrize("fields", [[], [""], ["  \t "], [b""]])
def test_nothing_sent_is_credentials_missing(fields: list[str | bytes]) -> None:
    assert parse_authorization(fields) is Reason.CREDENTIALS_MISSING


@pytest.mark.parametrize(
    "field",
    [
        "Basic dXNlcjpwYXNz",
        "Token abc",
        'Digest username="Mufasa", realm="x", uri="/"',
        "Negotiate",
        "Bearerabc",
        "Bearer-ish abc",
    ],
)
def test_another_scheme_is_unsupported(field: str) -> None:
    assert parse_authorization([field]) is Reason.SCHEME_UNSUPPORTED


@pytest.mark.parametrize(
    "fields",
    [
        ["Bearer"],
        ["Bearer "],
        ["Bearer\tabc"],
        ["Bearer \tabc"],
        ["Bearer a b"],
        ["Bearer a,b"],
        ["Bearer a=b"],
        ["Bearer =a"],
        ["Bearer é"],
        [b"Bearer \xff"],
        ["Bearer a\x00"],
        ["Bearer a\x7f"],
        ["Bearer\x00abc"],
        ["Bearer a\r\nX: b"],
        ["Bearer, abc"],
        ["Bearer abc, Bearer abc"],
        ["Basic abc, Bearer abc"],
        ["Basic abc,Bearer abc"],
        ["Basic abc, bearer"],
        ["\x00"],
        ["é abc"],
        [",Bearer abc"],
        ["Bearer abc", "Bearer abc"],
        ["Bearer abc", "Basic abc"],
        ["", ""],
        ["Bearer abc", ""],
    ],
)
def test_what_breaks_the_grammar_is_malformed(fields: list[str | bytes]) -> None:
    assert parse_authorization(fields) is Reason.CREDENTIALS_MALFORMED


def test_a_lone_string_counts_as_one_field() -> None:
    token = parse_authorization("Bearer abc")

    assert isinstance(token, Secret)


@given(st.lists(st.binary() | st.text(), max_size=3))
def test_parsing_never_raises_whatever_the_bytes(fields: list[str | bytes]) -> None:
    assert isinstance(parse_authorization(fields), Secret | Reason)


@given(st.binary())
def test_bytes_after_the_scheme_never_raise(data: bytes) -> None:
    assert isinstance(parse_authorization([b"Bearer " + data]), Secret | Reason)


@pytest.mark.parametrize("unit", [",", ", ", "a,", "= ", " ,\t", "bearer,", "b", "=", " ", "\t,"])
def test_a_long_field_is_read_in_one_pass(unit: str) -> None:
    """A quadratic reader would take hours over these, and the test's time limit would end it."""
    long = unit * (4_000_000 // len(unit))

    for scheme in ("Bearer ", "Basic ", ""):
        assert parse_authorization([scheme + long]) is not None


@pytest.mark.parametrize("token", ["42|abc", "a|b|c", "|", "42|abc=="])
def test_a_bar_is_part_of_a_token_only_where_it_is_allowed(token: str) -> None:
    assert parse_authorization([f"Bearer {token}"]) is Reason.CREDENTIALS_MALFORMED

    found = parse_authorization([f"Bearer {token}"], bar=True)

    assert isinstance(found, Secret)
    assert found.reveal() == token


@pytest.mark.parametrize("token", ["a b|c", "a,|b", "=|a", "é|a", "a|b\x00"])
def test_a_bar_allows_nothing_else(token: str) -> None:
    assert parse_authorization([f"Bearer {token}"], bar=True) is Reason.CREDENTIALS_MALFORMED
