"""The header fields that every answer of the API and the console has, for the sake of safety."""

from __future__ import annotations

from keyguard.core.access.answers import Response

SAFETY_FIELDS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


def protected(answer: Response) -> Response:
    """Return an answer with the fields of safety that it lacks."""
    present = {name.lower() for name, _ in answer.headers}
    missing = (field for field in SAFETY_FIELDS if field[0].lower() not in present)
    return Response(answer.status, (*answer.headers, *missing), answer.body)
