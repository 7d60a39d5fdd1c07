"""Tokens: what is minted parses back, and nothing else parses."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import InvalidValueError
from keyguard.core.tokens.format import ALPHABET, ENTROPY_SIZE, TokenFormat, TokenParts, base62

FORMAT = TokenFormat("aiaas_live")

entropies = st.binary(min_size=ENTROPY_SIZE, max_size=ENTROPY_SIZE)
prefixes = st.from_regex(r"[a-z][a-z0-9]{0,9}(_[a-z0-9]{1,9}){0,2}", fullmatch=True)


@given(prefixes, entropies)
def test_what_is_minted_parses_back(prefix: str, entropy: bytes) -> None:
    tokens = TokenFormat(prefix)
    parts = TokenParts.draw(entropy)

    token = tokens.mint(parts).reveal()

    assert tokens.parse(token) == parts
    assert len(token) == tokens.length


def test_a_token_has_the_documented_shape() -> None:
    token = FORMAT.mint(TokenParts.draw(bytes(range(ENTROPY_SIZE)))).reveal()

    assert re.fullmatch(r"aiaas_live_[0-9A-Za-z]{16}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", token)


@pytest.mark.parametrize(
    ("entropy", "token"),
    [
        (
            "000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
            "kg_0000000000000000_00000000000000000000000000000000000000000000NWvNb",
        ),
        (
            "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "kg_M5Tflk9n8mt7Fhc7_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp105exFh",
        ),
        (
            "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f",
            "kg_7RiJxkEgOGusQGwp_3oDH4mEVFvp7u7ED6UzpF5eHPrBI5AHumY7UBpOQIJz3znFbe",
        ),
    ],
    ids=["zeros", "ones", "count"],
)
def test_the_token_format_does_not_change_between_versions(entropy: str, token: str) -> None:
    minted = TokenFormat("kg").mint(TokenParts.draw(bytes.fromhex(entropy)))

    assert minted.reveal() == token


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")))
def test_parsing_never_raises_whatever_the_string(text: str) -> None:
    assert FORMAT.parse(text) is None


@given(entropies, st.data())
def test_one_flipped_character_is_always_refused(entropy: bytes, data: st.DataObject) -> None:
    token = FORMAT.mint(TokenParts.draw(entropy)).reveal()
    position = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(
        st.sampled_from(ALPHABET + "_-=. \n\0é").filter(lambda c: c != token[position])
    )

    assert FORMAT.parse(token[:position] + other + token[position + 1 :]) is None


@given(entropies, st.data())
def test_two_swapped_neighbours_are_refused(entropy: bytes, data: st.DataObject) -> None:
    token = FORMAT.mint(TokenParts.draw(entropy)).reveal()
    position = data.draw(st.integers(0, len(token) - 2))
    swapped = token[:position] + token[position + 1] + token[position] + token[position + 2 :]

    assert (FORMAT.parse(swapped) is None) == (swapped != token)


@given(entropies)
def test_anything_around_a_token_is_refused(entropy: bytes) -> None:
    token = FORMAT.mint(TokenParts.draw(entropy)).reveal()

    for spoilt in (token + "\n", token + "0", " " + token, token[1:], token[:-1], token + token):
        assert FORMAT.parse(spoilt) is None


def test_a_token_of_another_service_is_refused() -> None:
    token = TokenFormat("other_live").mint(TokenParts.draw(bytes(48))).reveal()

    assert FORMAT.parse(token) is None


def test_the_published_expression_finds_a_leaked_token_in_any_text() -> None:
    token = FORMAT.mint(TokenParts.draw(b"\x01" * 48)).reveal()

    assert re.findall(FORMAT.regex, f'AUTH="{token}"; {token},x') == [token, token]


@pytest.mark.parametrize("prefix", ["", "A", "1a", "a-b", "a__b", "_a", "a_", "a" * 33, "é", "a\n"])
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidValueError, match="not a valid token prefix"):
        TokenFormat(prefix)


def test_parts_do_not_show_the_secret() -> None:
    parts = TokenParts.draw(b"\x07" * 48)

    assert parts.secret not in repr(parts)


def test_parts_take_exactly_the_entropy_they_need() -> None:
    with pytest.raises(InvalidValueError, match="48 random bytes"):
        TokenParts.draw(bytes(47))


@given(st.integers(0, 62**6 - 1))
def test_base62_is_positional_and_zero_padded(number: int) -> None:
    text = base62(number.to_bytes(5, "big"), 6)

    assert len(text) == 6
    value = 0
    for character in text:
        value = value * 62 + ALPHABET.index(character)
    assert value == number
