"""What counts as guessable: length times alphabet, below 112 bits."""

from __future__ import annotations

import secrets
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyguard import Secret
from keyguard.core.tokens.foreign import FEWEST_BITS, is_guessable, most_bits, read_formats

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE62 = string.ascii_letters + string.digits


def drawn(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "x",
        "hunter2",
        "letmein",
        "correct-horse",
        "Sup3rS3cr3tT0k3n",
        "0123456789" * 3,
        "9f8e1c7a0b64d25398fa3e6b1d",
        "------------------------------------------------",
        "é" * 40,
    ],
)
def test_a_token_that_can_not_carry_112_bits_is_guessable(token: str) -> None:
    assert is_guessable(Secret(token), ())


@pytest.mark.parametrize(
    ("alphabet", "length"),
    [
        ("0123456789", 34),
        ("0123456789abcdef", 40),
        (BASE58, 24),
        (BASE62, 32),
        (BASE62 + "-_", 43),
    ],
)
def test_a_random_token_of_112_bits_is_not(alphabet: str, length: int) -> None:
    guessable = sum(is_guessable(Secret(drawn(alphabet, length)), ()) for _ in range(200))

    assert guessable <= 1  # a random token may happen to use few kinds of characters


def test_a_random_uuid_is_not() -> None:
    assert not is_guessable(Secret("f1a0c3b2-7d5e-4a96-8c41-2be90d7f6a35"), ())


@pytest.mark.parametrize(
    ("text", "bits"),
    [
        ("1234", 13.3),
        ("12af", 16),
        ("12AF", 16),
        ("wxyz", 18.8),
        ("wxy1", 20.7),
        ("wxYZ", 22.8),
        ("wxY1", 23.8),
        ("wx-Y1_", 23.8),
    ],
)
def test_bits_are_the_length_times_those_of_the_alphabet(text: str, bits: float) -> None:
    assert most_bits(text) == pytest.approx(bits, abs=0.05)


def test_only_the_secret_part_of_an_imported_token_counts() -> None:
    token = Secret("a-public-part-of-many-characters-X9k2.hunter2")

    assert most_bits(token.reveal()) >= FEWEST_BITS
    assert not is_guessable(token, ())
    assert is_guessable(token, read_formats(["drf"]))
    assert not is_guessable(token, read_formats(["sanctum", "token"]))


@given(st.text(max_size=200))
def test_every_text_is_one_or_the_other(text: str) -> None:
    assert is_guessable(Secret(text), read_formats(["drf", "seam"])) in (True, False)
