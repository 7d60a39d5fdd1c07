"""How hard a string is to guess.

An estimate, made to be wrong on the safe side: what looks as if people had chosen it counts as weak
although it may be random, and is then only hashed more slowly. Random hex, base58, base62 and
base64 pass from 112 bits on, which is where NIST SP 800-63B (section 5.1.2.2) ends to ask for more
than one approved hash.
"""

from __future__ import annotations

import re
from itertools import pairwise
from math import log2

from keyguard.core.tokens.secret import Secret

__all__ = ["FEWEST_BITS", "is_weak"]

FEWEST_BITS = 112
"""From how many bits on a secret is no longer guessed, whatever it is hashed with."""

# What everybody knows of a token, such as acme_live_; other short ones may be random.
_LABELS = re.compile(
    r"(?:(?:[a-z][a-z0-9]{1,11}[_.:-])?(?:[sprak]k|live|test|prod|dev|api|key|pat|token)[_.:-]"
    r"|[a-z]{6,12}[_.:-]){1,3}"
)
_UUID = re.compile(
    r"[0-9a-f]{8}-?[0-9a-f]{4}-?([0-9a-f])[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}\Z", re.I
)
_LETTERS = re.compile(r"(?=[A-Za-z]{4})(?:[A-Z]?[a-z]{2,})+|[A-Z]{4,}")  # as people write words
_BETWEEN = re.compile(r"[^A-Za-z0-9]+")
_WORD = re.compile(r"(?:[A-Z]?[a-z]+|[A-Z]+)\Z")
_DISGUISED = re.compile(r"(?<=[A-Za-z])[01345@$](?=[A-Za-z])")
_LEET = {"0": "o", "1": "l", "3": "e", "4": "a", "5": "s", "@": "a", "$": "s"}
_KEYBOARD = "1234567890 qwertyuiop asdfghjkl zxcvbnm"
_HEXADECIMAL = 16
_SHORTEST_RUN = 5
_SHORTEST_REPEAT = 6
_BITS_A_LETTER = 1.5  # of words, between the bounds that Shannon found for English
_FEWEST_COMMON_PAIRS = 0.6
_MOST_IN_WORDS = 0.7
# The pairs of letters that two thirds of English are made of; of random ones it is a seventh.
_COMMON = (
    "thheineranreonatenndtiesorteofedisitalarsttontngsehaasouiolevecomedehiriroicneearace"
    "lichllbemasiomurcaeltalansdifohopeecprnoctusacotiltrlyncetutsssorsunlowageiewheewiem"
    "adolrtpowenaulnitsmoowpaimmiaishirsuidosiviaamficivipligtuevldrympfeblabghtyopwosaay"
    "exkeeypiapokmyki"
)
_PAIRS = frozenset(map("".join, zip(_COMMON[::2], _COMMON[1::2], strict=True)))


def is_weak(secret: Secret) -> bool:
    """Tell whether a secret is short, patterned or chosen by people: below 112 bits, as estimated.

    Args:
        secret: The part of a token that is not public.
    """
    return _bits(secret.reveal()) < FEWEST_BITS


def _bits(text: str) -> float:
    labels = _LABELS.match(text)
    text = text[labels.end() :] if labels else text
    uuid = _UUID.match(text)
    if uuid and "-" in text:  # of the other versions much is a clock
        return 122.0 if uuid[1] == "4" else 0.0
    alphabet = _alphabet(text)
    length = len(text)
    if alphabet < 2 or len(set(text)) < 0.5 * alphabet * (1 - (1 - 1 / alphabet) ** length):
        return 0.0
    a_character = log2(alphabet)
    surprising = length - _predictable(text.lower())
    worded = _in_words(text) if alphabet > _HEXADECIMAL else 0
    written = sum(map(str.isalnum, text))
    if worded >= _MOST_IN_WORDS * written:
        return min(surprising, written - worded) * a_character + worded * _BITS_A_LETTER
    return surprising * a_character


def _alphabet(text: str) -> int:
    """Return how many characters it was drawn from, as far as it shows."""
    classes = (("0123456789", 10), ("abcdef", 6), ("ABCDEF", 6))
    size = sum(count for members, count in classes if any(one in members for one in text))
    rest = {one for one in text if one not in "0123456789abcdefABCDEF"}
    if not rest and not (set(text) & set("abcdef") and set(text) & set("ABCDEF")):
        return _HEXADECIMAL if size > 10 else size
    lower = any("a" <= one <= "z" for one in text)
    upper = any("A" <= one <= "Z" for one in text)
    digits = any(one in "0123456789" for one in text)
    others = {one for one in rest if not (one.isascii() and one.isalpha())}
    return 26 * lower + 26 * upper + 10 * digits + len(others)


def _predictable(text: str) -> int:
    """Return how many characters only go on: repeat, count up or down, follow the keyboard."""
    expected = [False] * len(text)
    for places in ([ord(one) for one in text], [2 * _KEYBOARD.find(one) for one in text]):
        steps = [after - before for before, after in pairwise(places)]
        unit = 1 if places and places[0] == ord(text[0]) else 2
        start = 0
        for at in range(1, len(steps) + 1):
            if at == len(steps) or steps[at] != steps[start]:
                if abs(steps[start]) <= unit and at - start + 1 >= _SHORTEST_RUN:
                    expected[start + 1 : at + 1] = [True] * (at - start)
                start = at
    for end in range(_SHORTEST_REPEAT + 1, len(text) + 1):
        if text.find(text[end - _SHORTEST_REPEAT : end], 0, end - 1) >= 0:
            expected[end - 1] = True
    return sum(expected)


def _in_words(text: str) -> int:
    """Return how many characters stand in what reads like English, or like separate words."""
    parts = _BETWEEN.split(text)
    found = sum(len(part) for part in parts if _WORD.match(part)) if len(parts) > 2 else 0
    for spelt in {text, _DISGUISED.sub(lambda one: _LEET[one[0]], text)}:
        inside = 0
        for letters in _LETTERS.findall(spelt):
            pairs = [first + second in _PAIRS for first, second in pairwise(letters.lower())]
            if sum(pairs) >= _FEWEST_COMMON_PAIRS * len(pairs):
                inside += len(letters)
        found = max(found, inside)
    return found
