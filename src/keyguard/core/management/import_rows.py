"""Rows of an import: a line of JSON for each key, with its raw token or its hash."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from keyguard.core.identity.scopes import parse_granted
from keyguard.core.limits.limit import Limit, parse_limit, read_limits
from keyguard.core.texts import check_metadata, check_text, fits
from keyguard.core.tokens.foreign import (
    FEWEST_BITS,
    LARGEST_BCRYPT_COST,
    LONGEST_TOKEN,
    MOST_ARGON2,
    SHORTEST_TOKEN,
    ForeignFormat,
)
from keyguard.core.tokens.format import TokenFormat
from keyguard.core.tokens.secret import Secret
from keyguard.core.values import ORGANIZATION_NAME, settle_times
from keyguard.exceptions import InvalidValueError

LONGEST_ROW = 64 * 1024
"""The most characters of a row."""


_NO_ROW = "a row is one JSON object on one line, in UTF-8"
_TELLING = 8
_LONGEST_TEXT = 200
_FIELD_NAME = re.compile(r"[a-z_]{1,20}\Z")

_HEX = re.compile(r"(?:[0-9a-fA-F]{64}){1,2}\Z")
_SHA256_DIGITS, _SHA512_DIGITS = 64, 128
_OF_DRF = "sha512$$"
_OF_NOTHING = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
    "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
)
_ARGON2 = re.compile(
    r"\$argon2(?:id|i|d)\$v=(?:16|19)\$m=([1-9][0-9]{0,9}),t=([1-9][0-9]{0,9}),p=([1-9][0-9]{0,9})"
    r"\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{16,86}\Z"
)
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRow:
    """A key to import.

    Args:
        organization: Id or slug of the organization that will own the key.
        name: Its name for people.
        scopes: Its scopes.
        token: The raw token, or None if only its hash is known.
        hash: The hash of the token, as the other system kept it, or None.
        format: The format of the token.
        lookup: The public part of the token, if only its hash is known.
        expires_at: When the key stops working, in UTC, or None.
        not_before: When the key begins to work, in UTC, or None.
        created_at: When the other system issued the key, in UTC, or None.
        metadata: The service's own notes.
        limits: Its limits.
    """

    organization: str
    name: str
    scopes: frozenset[str] = frozenset()
    token: Secret | None = None
    hash: Secret | None = None
    format: ForeignFormat
    lookup: str | None = None
    expires_at: datetime | None = None
    not_before: datetime | None = None
    created_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    limits: tuple[Limit, ...] = ()

    def __post_init__(self) -> None:
        settle_times(self, optional=["expires_at", "not_before", "created_at"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportIdentity:
    """The id of a row's key, and the stored form of its token.

    Args:
        key_id: The id.
        digest: The stored form, or None if the token is still to be hashed.
        guessable: Whether the token has less than 112 bits, so that only
            :meth:`~keyguard.settings.hashing.TokenHasher.hash_slowly` may hash it.
    """

    key_id: str
    digest: str | None = field(default=None, repr=False)
    guessable: bool = False


_FIELDS = ImportRow.__slots__

# An error must not have a token in its frames. So the functions below raise only inside _attempt,
# which catches the exception and passes on its message.


def parse_row(text: str) -> ImportRow:
    """Read a line of an import.

    Args:
        text: A JSON object of at most 64 KiB with ``organization`` and ``name``, and either
            ``token`` or ``hash``. A hash also takes ``lookup``, the public part of the token,
            except in the format ``token``. Optional are ``format`` (``token`` by default),
            ``scopes``, ``expires_at``, ``not_before`` and ``created_at`` (ISO 8601 with an
            offset), ``metadata`` and ``limits`` (rates such as ``"100/minute"``, ``"NAME=RATE"``,
            or objects).

    Raises:
        InvalidValueError: The line is not such an object. The message shows neither the token nor
            the hash.
    """
    outcome = _attempt(text)
    del text
    if isinstance(outcome, str):
        raise InvalidValueError(outcome)
    return outcome


def identify(
    row: ImportRow, tokens: TokenFormat, formats: Sequence[ForeignFormat]
) -> ImportIdentity:
    """Return the id of a row's key, and the stored form of its token.

    Args:
        row: The row.
        tokens: The format of the service's own tokens, which keep their ids.
        formats: The formats of imported tokens that the service looks up.

    Raises:
        InvalidValueError: The token does not have the row's format, the hash is malformed, a
            request with the token would never find the key, or the token is guessable and has no
            public part.
    """
    parts = None if row.token is None else tokens.parse(row.token.reveal())
    if parts is not None:
        return ImportIdentity(key_id=parts.key_id)
    if all(row.format.name != form.name for form in formats):
        raise InvalidValueError(
            f"tokens of the format {row.format.name!r} are not looked up here; add it to "
            "imported_formats (KEYGUARD_IMPORTED_FORMATS)"
        )
    if row.token is not None:
        return _identify_token(row.token, row.format)
    if row.hash is None:
        raise InvalidValueError("a row takes either token or hash")
    digest, complaint = _read_hash(row.hash.reveal(), row.format)
    if complaint:
        raise InvalidValueError(complaint)
    if row.format.has_public_part:
        key_id = row.format.id_of(row.lookup or "")
    else:
        key_id = row.format.id_of_digest(bytes.fromhex(row.hash.reveal()))
    if key_id is None:
        raise InvalidValueError(
            f"lookup is not the public part of a token of the format {row.format.name!r}"
        )
    return ImportIdentity(key_id=key_id, digest=digest)


def _identify_token(token: Secret, form: ForeignFormat) -> ImportIdentity:
    key_id = form.lookup(token.reveal())
    if key_id is None:
        raise InvalidValueError(
            f"the token is not of the format {form.name!r}, or is not of {SHORTEST_TOKEN} to "
            f"{LONGEST_TOKEN} characters that RFC 6750 lets clients send"
        )
    guessable = form.is_guessable(token.reveal())
    if guessable and not form.has_public_part:
        raise InvalidValueError(
            f"the token carries less than {FEWEST_BITS} bits and has no public part to look it up "
            "by: import it in the format 'prefix:N', or issue a new key"
        )
    return ImportIdentity(key_id=key_id, guessable=guessable)


def _read_hash(stored: str, form: ForeignFormat) -> tuple[str, str]:
    """Return the stored form of a hash and an empty complaint, or the other way round."""
    if form.name == "drf":
        stored = stored.removeprefix(_OF_DRF)
    if _HEX.match(stored):
        stored = stored.lower()
        if stored in _OF_NOTHING:
            return "", "the hash is that of an empty string"
        value = urlsafe_b64encode(bytes.fromhex(stored)).rstrip(b"=").decode()
        if len(stored) == _SHA256_DIGITS and form.name != "drf":
            tail = f"-tail${form.separator}" if form.separator else ""
            return f"$sha256{tail}${value}", ""
        if len(stored) == _SHA512_DIGITS and (form.name == "drf" or form.numbered):
            return f"$sha512${value}", ""
    elif form.numbered:
        argon2, bcrypt = _ARGON2.match(stored), _BCRYPT.match(stored)
        if argon2:
            memory, time, lanes = map(int, argon2.groups())
            work = {"time_cost": time, "memory_cost": memory, "parallelism": lanes}
            if any(work[name] > most for name, most in MOST_ARGON2.items()):
                return "", "the argon2 hash asks for more work than is allowed"
            return stored, ""
        if bcrypt:
            if not 4 <= int(bcrypt[1]) <= LARGEST_BCRYPT_COST:
                return "", f"the bcrypt hash has a cost that is not 4 to {LARGEST_BCRYPT_COST}"
            return stored, ""
    return "", f"the hash is not {_HASHES.get(form.name, _HASHES_OF_NUMBERED)}"


_HASHES = {
    "token": "the SHA-256 of the whole token in hex",
    "drf": "the SHA-512 of the whole token in hex, with or without 'sha512$$' before it",
    "sanctum": "the SHA-256 in hex of what follows the '|'",
    "seam": "the SHA-256 in hex of what follows the last '_'",
}
_HASHES_OF_NUMBERED = (
    "an argon2 or bcrypt string, nor the SHA-256 or SHA-512 of the whole token in hex"
)


def _attempt(text: str) -> ImportRow | str:
    """Return the row, or the message of what is wrong with it. This never raises."""
    if len(text) > LONGEST_ROW:
        return f"a row takes at most {LONGEST_ROW} characters"
    try:
        given: object = json.loads(text, object_pairs_hook=_object)
    except InvalidValueError as refusal:
        return str(refusal)
    except (ValueError, RecursionError):
        return _NO_ROW
    if not isinstance(given, dict):
        return _NO_ROW
    fields = cast("dict[str, object]", given)
    try:
        return _row(fields)
    except InvalidValueError as refusal:
        shown = str(refusal)
        if any(_shows(shown, fields.get(name)) for name in ("token", "hash")):
            return "a field of the row is malformed, and contains a part of the token or the hash"
        return shown


def _shows(sentence: str, secret: object) -> bool:
    """Return whether a sentence contains more of a secret than could be chance."""
    if not isinstance(secret, str) or not secret:
        return False
    size = min(_TELLING, len(secret))
    parts = {secret[at : at + size] for at in range(len(secret) - size + 1)}
    return any(part in sentence for part in parts)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise InvalidValueError("a row names no field twice")
    return found


def _row(given: dict[str, object]) -> ImportRow:
    for unknown in given.keys() - {*_FIELDS}:
        shown = f" {unknown!r}" if _FIELD_NAME.match(unknown) else ""
        raise InvalidValueError(f"there is no field{shown}; use one of: {', '.join(_FIELDS)}")
    organization = _text(given, "organization")
    token, stored = _text(given, "token", LONGEST_TOKEN), _text(given, "hash", LONGEST_TOKEN)
    lookup = _text(given, "lookup")
    if organization is None or not ORGANIZATION_NAME.match(organization):
        raise InvalidValueError("organization takes the id or the slug of an organization")
    if (token is None) is (stored is None):
        raise InvalidValueError("a row takes either token or hash")
    form = ForeignFormat(_text(given, "format") or "token")
    if lookup is not None and (stored is None or not form.has_public_part):
        raise InvalidValueError("lookup goes only with the hash of a token that has a public part")
    if lookup is None and stored is not None and form.has_public_part:
        raise InvalidValueError(
            f"a hash in the format {form.name!r} takes lookup, the token's public part"
        )
    return ImportRow(
        organization=organization,
        name=check_text("name", given.get("name")),
        scopes=parse_granted(_list(given, "scopes")),
        token=None if token is None else Secret(token),
        hash=None if stored is None else Secret(stored),
        format=form,
        lookup=lookup,
        expires_at=_time(given, "expires_at"),
        not_before=_time(given, "not_before"),
        created_at=_time(given, "created_at"),
        metadata=_metadata(given.get("metadata")),
        limits=_limits(_list(given, "limits")),
    )


def _text(given: dict[str, object], name: str, most: int = _LONGEST_TEXT) -> str | None:
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= most or not fits(value):
        raise InvalidValueError(f"{name} takes a string of 1 to {most} characters")
    return value


def _list(given: dict[str, object], name: str) -> list[object]:
    value = given.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidValueError(f"{name} takes a list")
    return value  # pyright: ignore[reportUnknownVariableType]  # of anything


def _time(given: dict[str, object], name: str) -> datetime | None:
    text = _text(given, name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidValueError(f"{name} takes a time with its offset, such as 2027-01-31T09:00:00Z")


def _metadata(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    return check_metadata(cast("dict[str, str]", value))


def _limits(given: list[object]) -> tuple[Limit, ...]:
    found: list[Limit] = []
    for limit in given:
        if isinstance(limit, str):
            found.append(parse_limit(limit, "key"))
        elif isinstance(limit, dict) and {"name", "rate"} <= limit.keys() <= _LIMIT_FIELDS:
            found.append(Limit(**cast("dict[str, Any]", limit)))
        else:
            raise InvalidValueError(
                "limits takes rates such as '100/minute', 'NAME=RATE', or objects with name and "
                "rate, and maybe per, strategy and enforce"
            )
    return read_limits(found, "key", stored=True)


_LIMIT_FIELDS = {"name", "rate", "per", "strategy", "enforce"}
