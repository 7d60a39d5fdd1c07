"""What names, notes, actors and metadata may contain, in every script and every Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import keyguard
from keyguard.core.texts import check_metadata, check_text, escaped
from keyguard.core.tokens.format import TokenFormat, TokenParts
from keyguard.exceptions import InvalidValueError

SCRIPTS = {
    "Latin": "Zürich",
    "Vietnamese": "Nguyễn",
    "Greek": "Ελληνικά",
    "Cyrillic": "Київ",
    "Arabic": "مفتاح",
    "Persian, with ZWNJ": "می\u200cخواهم",  # noqa: RUF001 - as it is written
    "Hebrew, with marks of direction": "מפתח\u200f!",
    "Hindi, with ZWJ": "क्\u200dष",
    "Sinhala, with ZWJ": "ශ්\u200dරී",
    "Bengali": "চাবি",
    "Tamil": "சாவி",
    "Thai": "กุญแจ",
    "Japanese, with U+3000": "株式会社\u3000鍵",
    "Chinese": "钥匙",
    "Chinese, beyond the first plane": "\U00020bb7野家",
    "Korean": "열쇠",
    "Georgian": "გასაღები",
    "Amharic": "ቁልፍ",
    "Cherokee": "ᏣᎳᎩ",
    "no-break space": "10\xa0000",
    "soft hyphen": "key\xadguard",
    "joined emoji": "👩\u200d💻",
    "variation selector": "❤\ufe0f",
    "flag of tags": "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "emoji of Unicode 15": "my \U0001fae8 bot",
    "not assigned before Unicode 16": "\U000105c9",
    "never assigned so far": "\U0001fbff\U00030000",
    "private use": "\ue000\U0010fffd",
}

UNFIT = [
    *("\0", "\t", "\n", "\r", "\x1b", "\x1f", "\x7f", "\x80", "\x85", "\x9f"),
    *("\u2028", "\u2029", "\u202a", "\u202d", "\u202e", "\u2066", "\u2069"),
    *("\ud800", "\udcff", "\udfff", "\ufdd0", "\ufdef", "\ufffe", "\uffff", "\U0010fffe"),
]


@pytest.mark.parametrize("text", SCRIPTS.values(), ids=SCRIPTS)
def test_a_name_may_be_of_any_script(text: str) -> None:
    assert check_text("a name", text) == text
    assert check_metadata({text: text}) == {text: text}
    assert escaped(text) == text


@pytest.mark.parametrize("char", UNFIT, ids=ascii)
def test_what_could_deceive_is_refused(char: str) -> None:
    for text in (char, f"a{char}b"):
        with pytest.raises(InvalidValueError, match="a name takes no control characters"):
            check_text("a name", text)
        for metadata in ({text: ""}, {"": text}):
            with pytest.raises(InvalidValueError, match="metadata takes no control characters"):
                check_metadata(metadata)


@pytest.mark.parametrize("char", UNFIT, ids=ascii)
def test_what_could_deceive_is_shown_by_its_escape(char: str) -> None:
    shown = escaped(f"é{char}\u200c")
    assert shown == f"é{ascii(char)[1:-1]}\u200c"


@pytest.mark.parametrize("text", ["", " ", "\u3000", "\xa0 ", "\u200b\u200c\u200d", "\ufeff"])
def test_a_name_shows_something(text: str) -> None:
    with pytest.raises(InvalidValueError, match="a name takes 1 to 200 characters"):
        check_text("a name", text)


def test_what_is_stored_is_normalized() -> None:
    assert check_text("a name", "Zu\u0308rich") == "Zürich"
    assert check_text("a name", "\u1112\u1161\u11ab" * 200) == "한" * 200
    assert check_metadata({"u\u0308": "e\u0301"}) == {"ü": "é"}


@pytest.mark.parametrize("text", ["x" * 201, "\u0958" * 101, "x" * 10_000_000])
def test_a_text_that_is_too_long_once_normalized_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="a name takes 1 to 200 characters"):
        check_text("a name", text)


@pytest.mark.parametrize("items", [{"u" * 501: ""}, {"": "u" * 501}, {"": "\u0958" * 251}])
def test_metadata_is_short(items: dict[str, str]) -> None:
    with pytest.raises(InvalidValueError, match="at most 50 items of at most 500 characters"):
        check_metadata(items)


def test_names_of_metadata_differ_once_they_are_normalized() -> None:
    with pytest.raises(InvalidValueError, match="metadata names 'ü' twice"):
        check_metadata({"ü": "a", "u\u0308": "b"})


OF_ALL = "12f4797ed7bfc47caf22ede113d301150e5c92fd112d9ea61aba57872cd3930c"
"""What each prints."""

OF_EVERY_CODE_POINT = """
import hashlib, sys, types
package = types.ModuleType("keyguard")  # whose own module needs what this Python may not have
package.__path__ = sys.argv[1:]
sys.modules["keyguard"] = package
from keyguard.core.texts import escaped
shown = escaped("".join(map(chr, range(0x110000))))
print(hashlib.sha256(shown.encode()).hexdigest(), end="")
"""


def pythons() -> list[str]:
    """Return every Python that is installed and that keyguard supports, and this one."""
    names = [f"python3.{minor}" for minor in range(11, 16)]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    places = [path for name in names for path in root.glob(f"versions/*/bin/{name}")]
    found = [shutil.which(name, path="/usr/local/bin:/usr/bin") for name in names]
    return [sys.executable, *filter(None, found), *map(str, places)]


def test_every_python_takes_and_shows_the_same_characters() -> None:
    told = {
        python: subprocess.run(
            [python, "-c", OF_EVERY_CODE_POINT, *keyguard.__path__],
            check=True, capture_output=True, text=True,
        ).stdout
        for python in pythons()
    }  # fmt: skip
    assert set(told.values()) == {OF_ALL}, told


TOKEN = TokenFormat("aiaas_live").mint(TokenParts.draw(bytes(range(48)))).reveal()
KELVIN = TokenFormat("acme").mint(TokenParts("K" * 16, "a" * 43)).reveal().replace("K", "\u212a")
"""A token with U+212A, of which NFC makes K."""


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"works with {TOKEN}, please",
        f"token={TOKEN}.",
        KELVIN,
        f"{TOKEN}\u0301",
    ],
)
def test_no_text_that_others_read_takes_a_token(text: str) -> None:
    for check in (
        lambda: check_text("a reason", text, 1000),
        lambda: check_metadata({"note": text}),
        lambda: check_metadata({text: "note"}),
    ):
        with pytest.raises(InvalidValueError, match="must not hold a token") as failed:
            check()
        assert TOKEN[-43:] not in str(failed.value)


@pytest.mark.parametrize(
    "text", [TOKEN[:-1] + ("0" if TOKEN[-1] != "0" else "1"), TOKEN[:40], f"{TOKEN}0", "_" * 200]
)
def test_what_is_no_whole_token_is_a_text_like_any_other(text: str) -> None:
    assert check_text("a note", text) == text
