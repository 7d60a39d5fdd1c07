"""Checks the texts of settings and those that keyguard stores, alike in every version of Python.

Texts are checked before they are stored. A stored text is accepted as it is when it is read, and
shown through :func:`escaped`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from keyguard.core.tokens.format import holds_token
from keyguard.core.values import Metadata, read_metadata
from keyguard.exceptions import ConfigurationError, InvalidValueError, shown

_LONGEST_TEXT = 200
_MOST_METADATA = 50
_LONGEST_METADATA = 500
_MOST_COMPOSED = 4
"""How many characters normalization makes one of, at most."""

# Fixed ranges, because one version of Python reads what another has stored, and their own tables
# differ: controls, separators of lines and paragraphs, marks that embed, override or isolate a
# direction, surrogates, and code points that are no characters.
_NO_CHARACTERS = "".join(f"{chr(last - 1)}{chr(last)}" for last in range(0xFFFF, 0x110000, 0x10000))
# It is compiled for the first text that is not printable ASCII.
_UNFIT = (
    "[\0-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef" + _NO_CHARACTERS + "]"
)
_GAPS = dict.fromkeys(map(ord, "\t\r\n"), " ")
_BLANK = " \xa0\u1680\u202f\u205f\u2060\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x2010)))


def check_text(what: str, value: object, longest: int = _LONGEST_TEXT) -> str:
    """Return a text in NFC, as it is stored. By default it must have 1 to 200 characters.

    Raises:
        InvalidValueError: The value is not a string or its length is out of range, it has
            characters that could deceive, or it holds a token.
    """
    text = _normalized(what, value, longest)
    if not text or not text.strip(_BLANK):
        raise InvalidValueError(f"{what} takes 1 to {longest} characters, not {shown(value)}")
    return text


def _normalized(what: str, value: object, longest: int) -> str | None:
    """Return a text in NFC; None if it is no text or too long.

    The normal form of a character is the same in every version of Python that knows it. A version
    leaves characters that it does not know as they are.
    """
    if not isinstance(value, str) or len(value) > longest * _MOST_COMPOSED:
        return None
    if not fits(value):
        raise InvalidValueError(
            f"{what} takes no control characters, line breaks or direction overrides, "
            f"not {shown(value)}"
        )
    text = unicodedata.normalize("NFC", value)
    # NFC turns U+212A into K, and an accent changes a letter. It never makes an underscore.
    if "_" in value and any(map(holds_token, {value, text})):
        raise InvalidValueError(
            f"{what} must not hold a token, because others can read it; if the token works, "
            "revoke its key"
        )
    return text if len(text) <= longest else None


def fits(text: str) -> bool:
    """Return whether a text has only characters that can be stored, in every version of Python."""
    return (text.isascii() and text.isprintable()) or re.search(_UNFIT, text) is None


def settled_text(what: str, text: str, *, multiline: bool = False) -> str:
    """Return the text of a setting without the white space around it.

    Args:
        what: Where the text comes from, for the message of an error. The text may be a secret.
        text: The text.
        multiline: Whether line breaks and tabs may be inside.

    Raises:
        ConfigurationError: Another control character is inside.
    """
    text = text.strip()
    if not fits(text.translate(_GAPS) if multiline else text):
        raise ConfigurationError(
            f"{what} holds a control character, such as a line break; remove it"
        )
    return text


def escaped(text: str) -> str:
    """Return a text in which characters that could deceive are replaced by escape sequences."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(_UNFIT, lambda found: ascii(found[0])[1:-1], text)


def csv_cell(value: object) -> object:
    """Return a value for a CSV file. A text that a spreadsheet would run gets an apostrophe."""
    if not isinstance(value, str):
        return value
    first = unicodedata.normalize("NFKC", value.lstrip()[:1])  # full-width signs count too
    runs = value.startswith(("\t", "\r", "\n")) or first.startswith(("=", "+", "-", "@"))
    return f"'{value}" if runs else value


def check_metadata(value: Mapping[str, str]) -> Metadata:
    """Return metadata as it is stored, in NFC.

    Raises:
        InvalidValueError: The value is no mapping of short texts, a text has characters that could
            deceive, or two names are the same in NFC.
    """
    given = read_metadata(value)
    notes: dict[str, str] = {}
    for name, text in given.items() if len(given) <= _MOST_METADATA else ():
        stored_name, stored_text = (
            _normalized("metadata", item, _LONGEST_METADATA) for item in (name, text)
        )
        if stored_name is None or stored_text is None:
            break
        if stored_name in notes:
            raise InvalidValueError(f"metadata names {shown(stored_name)} twice")
        notes[stored_name] = stored_text
    if len(notes) < len(given):
        raise InvalidValueError(
            f"metadata takes at most {_MOST_METADATA} items "
            f"of at most {_LONGEST_METADATA} characters each"
        )
    return Metadata(notes)
