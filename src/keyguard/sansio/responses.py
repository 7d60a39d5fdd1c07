"""What goes over the wire when a request is refused (RFC 6750, RFC 9110, RFC 9457).

All that concern the key itself get the same bytes: a client learns that its key is not good, and
not why. The table is in docs/http.md.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus

from keyguard.exceptions import InvalidValueError
from keyguard.sansio.decisions import Deny, Reason

__all__ = ["Responder", "Response"]

RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Response:
    """One complete answer.

    Args:
        status: The status code.
        headers: Field names and values, in order.
        body: The content; a HEAD request gets the same fields and none of it.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def status_line(self) -> str:
        """Status code and reason phrase, as WSGI wants them."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    detail: str
    challenge: bool = False
    error: str | None = None


_MALFORMED = _Answer(
    400,
    "The Authorization header is malformed. Send exactly one, as: Authorization: Bearer <key>",
    challenge=True,
    error="invalid_request",
)
_MISSING = _Answer(
    401, "This needs an API key. Send it as: Authorization: Bearer <key>", challenge=True
)
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
    Reason.KEY_NOT_YET_VALID: _INVALID,
    Reason.ORGANIZATION_DISABLED: _INVALID,
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
}

_NAMES_SCOPES = {Reason.SCOPE_MISSING}


class Responder:
    """Spells refusals for one realm.

    Args:
        realm: The protection space of RFC 9110, section 11.5: printable ASCII, at most 100
            characters.

    Raises:
        InvalidValueError: The realm is none.
    """

    __slots__ = ("_always", "_realm")

    def __init__(self, realm: str) -> None:
        if not (realm and len(realm) <= 100 and realm.isascii() and realm.isprintable()):
            raise InvalidValueError(
                f"a realm takes 1 to 100 printable ASCII characters, not {realm!r}"
            )
        self._realm = realm.replace("\\", "\\\\").replace('"', '\\"')
        self._always = {
            reason: self._spell(Deny(reason)) for reason in _ANSWERS if reason not in _NAMES_SCOPES
        }

    def respond(self, deny: Deny) -> Response:
        """Return the answer to a refused request."""
        return self._always.get(deny.reason) or self._spell(deny)

    def _spell(self, deny: Deny) -> Response:
        answer = _ANSWERS[deny.reason]
        scopes = " ".join(deny.scopes)
        body = json.dumps(
            {
                "type": "about:blank",
                "title": HTTPStatus(answer.status).phrase,
                "status": answer.status,
                "detail": answer.detail.format(scopes=scopes),
            }
        ).encode()
        headers = [
            ("Content-Type", "application/problem+json"),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        if answer.challenge:
            headers.append(("WWW-Authenticate", self._challenge(answer, scopes)))
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
            headers.append(("Retry-After", str(RETRY_AFTER_SECONDS)))
        return Response(answer.status, tuple(headers), body)

    def _challenge(self, answer: _Answer, scopes: str) -> str:
        challenge = f'Bearer realm="{self._realm}"'
        if answer.error:
            challenge += f', error="{answer.error}"'
        if scopes:
            challenge += f', scope="{scopes}"'
        return challenge
