"""What a refused client receives (RFC 6750, RFC 9110, RFC 9457), and the fields about limits.

All refusals that concern the key itself have the same bytes: a client learns that its key is not
valid, but not why. docs/http.md has the table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from http import HTTPStatus
from math import ceil
from typing import NamedTuple

from keyguard.core.access.carriers import Carriers
from keyguard.core.access.decisions import Deny, Reason
from keyguard.core.limits.charges import Charge, policy_field
from keyguard.core.limits.windows import Tally
from keyguard.exceptions import InvalidValueError, shown

__all__ = [
    "LIMIT_FIELDS",
    "RETIRES_FIELD",
    "Responder",
    "Response",
    "check_realm",
    "detail_of",
    "encoded",
    "status_of",
]

RETRY_AFTER_SECONDS = 1

LIMIT_FIELDS = frozenset(
    {
        "ratelimit",
        "ratelimit-policy",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    }
)
"""The fields that tell a client of its limits, in lower case."""

RETIRES_FIELD = "Keyguard-Key-Expires"
"""Tells a client whose key was rotated, on accepted responses, when its key ends: an HTTP date."""

_OF_CONTENT = frozenset({"content-type", "content-length"})
_QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


@dataclass(frozen=True)
class Response:
    """One complete answer, in the forms that ASGI and WSGI take.

    Args:
        status: The status code.
        headers: Field names and values, in order.
        body: The content. An adapter answers a HEAD request with the same fields and no content.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def lost_from(self, status: int, names: Iterable[str]) -> list[tuple[str, str]]:
        """Return the fields that an application's own answer to the same refusal lacks.

        An answer with the same status counts as an answer to the refusal. A 401 must have a
        challenge (RFC 9110, section 15.5.2), and a client waits as long as ``Retry-After`` says,
        whatever the content. A field that the application has set is not changed.

        Args:
            status: The status of the application's answer.
            names: The names of its fields, in any case.
        """
        if status != self.status:
            return []
        there = _OF_CONTENT.union(name.lower() for name in names)
        return [(name, value) for name, value in self.headers if name.lower() not in there]

    @cached_property
    def status_line(self) -> str:
        """Status code and reason phrase, for WSGI."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"

    @cached_property
    def encoded_headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Field names in lower case and values, in bytes, for ASGI."""
        return tuple(encoded(self.headers))


def encoded(fields: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return fields in the form that ASGI takes: names in lower case, all in bytes."""
    found: list[tuple[bytes, bytes]] = []
    for name, value in fields:  # a comprehension is another call
        found.append((_encoded_name(name), value.encode()))
    return found


@lru_cache(1000)
def _encoded_policy(policy: str) -> tuple[bytes, bytes]:
    return b"ratelimit-policy", policy.encode()


def _limit_field(charges: Sequence[Charge], tallies: Sequence[Tally]) -> str:
    """Return the value of ``RateLimit`` (draft-ietf-httpapi-ratelimit-headers-10)."""
    charge, tally = charges[0], tallies[0]
    field = f'"{charge[1]}";r={tally[1]};t={ceil(tally[2])}'
    return field if len(charges) == 1 else f"{field}, {_limit_field(charges[1:], tallies[1:])}"


@lru_cache(64)
def _encoded_name(name: str) -> bytes:
    return name.lower().encode()


class _Answer(NamedTuple):
    status: int
    detail: str
    challenge: bool = False
    error: str | None = None
    type: str = "about:blank"


_MALFORMED = _Answer(
    400,
    "The {where} header is malformed. Send exactly one, as: {how}",
    challenge=True,
    error="invalid_request",
)
_MISSING = _Answer(401, "This needs an API key. Send it as: {how}", challenge=True)
_INVALID = _Answer(401, "The API key is not valid.", challenge=True, error="invalid_token")

_ANSWERS = {
    Reason.CREDENTIALS_MISSING: _MISSING,
    Reason.SCHEME_UNSUPPORTED: _MISSING,
    Reason.CREDENTIALS_MALFORMED: _MALFORMED,
    Reason.TOKEN_MALFORMED: _INVALID,
    Reason.KEY_UNKNOWN: _INVALID,
    Reason.SECRET_WRONG: _INVALID,
    Reason.KEY_REVOKED: _INVALID,
    Reason.KEY_EXPIRED: _INVALID,
    Reason.KEY_ROTATED: _INVALID,
    Reason.KEY_NOT_YET_VALID: _INVALID,
    Reason.ORGANIZATION_DISABLED: _INVALID,
    Reason.ADDRESS_NOT_ALLOWED: _INVALID,
    Reason.SCOPE_MISSING: _Answer(
        403,
        "The API key may not do this. It needs the scopes: {scopes}",
        challenge=True,
        error="insufficient_scope",
    ),
    Reason.TRANSPORT_INSECURE: _Answer(
        403, "Use HTTPS. An API key that was sent over plain HTTP must be considered exposed."
    ),
    Reason.OBJECT_NOT_FOUND: _Answer(404, "There is no such object."),
    Reason.STORE_UNAVAILABLE: _Answer(503, "The API key can't be checked now. Try again shortly."),
    Reason.RATE_LIMITED: _Answer(
        429, "Rate limit exceeded: {policies}. Try again in {wait}.", type=_QUOTA_EXCEEDED
    ),
    Reason.TOO_MANY_FAILURES: _Answer(
        429, "Too many failed attempts from this address. Try again in {wait}."
    ),
    Reason.LIMITER_UNAVAILABLE: _Answer(
        503, "The request can't be counted now. Try again shortly."
    ),
    Reason.PATH_AMBIGUOUS: _Answer(
        400,
        "The path can be read in several ways. Send it without encoded slashes, backslashes, dot "
        "segments, empty segments and control characters.",
    ),
    Reason.CLIENT_AMBIGUOUS: _Answer(
        400, "The fields of the request that proxies set are malformed, or contradict each other."
    ),
}

_VARYING = {Reason.SCOPE_MISSING, Reason.RATE_LIMITED, Reason.TOO_MANY_FAILURES}
"""The reasons whose answer depends on more than the reason."""


def status_of(deny: Deny) -> int:
    """Return the status with which a refusal is answered."""
    return _ANSWERS[deny.reason].status


def detail_of(deny: Deny) -> str:
    """Return the sentence of an answer that depends on the reason alone."""
    return _ANSWERS[deny.reason].detail


def check_realm(realm: str) -> None:
    """Refuse a realm that a challenge can't name.

    Raises:
        InvalidValueError: The realm is empty, too long, or not printable ASCII.
    """
    if not isinstance(realm, str) or not (
        realm and len(realm) <= 100 and realm.isascii() and realm.isprintable()
    ):
        raise InvalidValueError(
            f"a realm takes 1 to 100 printable ASCII characters, not {shown(realm)}"
        )


class Responder:
    """Writes the answers to refused requests for one realm, and the fields about limits.

    An answer that depends on the reason alone is written once, when it is first needed.

    Args:
        realm: The protection space of RFC 9110, section 11.5: printable ASCII, at most 100
            characters.
        carriers: Where a request may carry its key; None for ``Authorization: Bearer`` alone.
        legacy_headers: Whether ``X-RateLimit-Limit``, ``-Remaining`` and ``-Reset`` are sent as
            well.

    Raises:
        InvalidValueError: The realm is empty, too long, or not printable ASCII.
    """

    __slots__ = ("_how", "_legacy", "_realm", "_schemes", "_where", "_written")

    def __init__(
        self, realm: str, carriers: Carriers | None = None, *, legacy_headers: bool = False
    ) -> None:
        check_realm(realm)
        self._schemes = ("Bearer",) if carriers is None else carriers.schemes or ("ApiKey",)
        self._where = self._how = ""
        if carriers is not None:
            named = ("Authorization",) if carriers.schemes else ()
            self._where = " or ".join((*named, *carriers.header_names))
            self._how = ", or ".join(carriers.forms)
        self._realm = realm.replace("\\", "\\\\").replace('"', '\\"')
        self._legacy = legacy_headers
        self._written: dict[Reason, Response] = {}

    def respond(self, deny: Deny, now: float) -> Response:
        """Return the answer to a refused request."""
        reason = deny.reason
        written = self._written.get(reason)
        if written is not None:
            return written
        if reason in _VARYING:
            return self._write(deny, now)
        return self._written.setdefault(reason, self._write(Deny(reason), now))

    def limit_fields(
        self,
        charges: Sequence[Charge],
        tallies: Sequence[Tally],
        policy: str,
        now: Callable[[], float],
    ) -> list[tuple[str, str]]:
        """Return the fields that describe a client's limits."""
        fields = [("RateLimit-Policy", policy), ("RateLimit", _limit_field(charges, tallies))]
        if self._legacy:
            # These fields hold one policy: the first to run out. The reset is a time, as GitHub
            # sends it.
            charge, tally = min(zip(charges, tallies, strict=True), key=_left)
            fields += [
                ("X-RateLimit-Limit", str(charge.amount)),
                ("X-RateLimit-Remaining", str(tally.remaining)),
                ("X-RateLimit-Reset", str(ceil(now() + tally.reset_after))),
            ]
        return fields

    def encoded_limit_fields(
        self,
        charges: Sequence[Charge],
        tallies: Sequence[Tally],
        policy: str,
        now: Callable[[], float],
    ) -> list[tuple[bytes, bytes]]:
        """Return the fields of :meth:`limit_fields` as ASGI takes them."""
        if self._legacy:
            return encoded(self.limit_fields(charges, tallies, policy, now))
        # Nearly every answer with limits has these two fields, and the policy of a key rarely
        # changes.
        return [_encoded_policy(policy), (b"ratelimit", _limit_field(charges, tallies).encode())]

    def _write(self, deny: Deny, now: float) -> Response:
        answer = _ANSWERS[deny.reason]
        scopes = " ".join(deny.scopes)
        violations = deny.violations()
        content: dict[str, object] = {
            "type": answer.type,
            "title": HTTPStatus(answer.status).phrase,
            "status": answer.status,
            "detail": answer.detail.format(
                scopes=scopes,
                where=self._where or "Authorization",
                how=self._how or "Authorization: Bearer <key>",
                policies=", ".join(
                    f"{charge.name} ({charge.amount} in {_seconds(charge.window)})"
                    for charge, _ in violations
                ),
                wait=_seconds(deny.retry_after or RETRY_AFTER_SECONDS),
            ),
        }
        if violations:
            content["violated-policies"] = [charge.name for charge, _ in violations]
        body = json.dumps(content).encode()
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        if answer.challenge and (challenge := self._challenge(answer, scopes)):
            headers.append(("WWW-Authenticate", challenge))
        if answer.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
            headers.append(("Retry-After", str(deny.retry_after or RETRY_AFTER_SECONDS)))
        if violations:
            # RateLimit holds the violated policies alone, so that Retry-After is the longest wait.
            charges, tallies = zip(*violations, strict=True)
            policy = policy_field(deny.charges)
            headers += self.limit_fields(charges, tallies, policy, lambda: now)
        return Response(answer.status, tuple(headers), body)

    def _challenge(self, answer: _Answer, scopes: str) -> str:
        """Return one challenge for each scheme (RFC 9110, section 11.6.1).

        Only the challenge of Bearer says what is wrong (RFC 6750, section 3). The others are only
        for 401.
        """
        challenges: list[str] = []
        for scheme in self._schemes:
            challenge = f'{scheme} realm="{self._realm}"'
            if scheme == "Bearer":
                if answer.error:
                    challenge += f', error="{answer.error}"'
                if scopes:
                    challenge += f', scope="{scopes}"'
            elif answer.status != HTTPStatus.UNAUTHORIZED:
                continue
            challenges.append(challenge)
        return ", ".join(challenges)


def _left(pair: tuple[Charge, Tally]) -> float:
    charge, tally = pair
    return tally.remaining / charge.amount


def _seconds(number: int) -> str:
    return "1 second" if number == 1 else f"{number} seconds"
