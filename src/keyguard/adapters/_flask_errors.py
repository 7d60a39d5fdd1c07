"""Answers of Flask that come before any view: refusals, as Flask's errors, and CORS preflights."""

from __future__ import annotations

from flask import Flask, request
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.wrappers import Response as WerkzeugResponse

from keyguard.adapters._cors import has_cors_hook
from keyguard.adapters._wsgi_environ import Environ
from keyguard.core.access.answers import Response
from keyguard.core.access.decisions import AccessDenied, Deny, Reason

__all__ = ["FAILED", "PREFLIGHT", "answer_to", "is_for_flask_cors"]

FAILED = "an error handler failed on a refused request; the client gets keyguard's own answer"
PREFLIGHT = Deny(Reason.CREDENTIALS_MISSING)
"""A preflight that Flask-CORS answers, by what it adds to an empty answer. No view runs for it."""

_INTERNAL_SERVER_ERROR = 500


def answer_to(app: Flask, own: Response) -> WerkzeugResponse:
    """Let an application's error handlers answer a refusal; return keyguard's answer otherwise.

    An answer of the same status gets the fields of keyguard's that it lacks. keyguard's answer is
    sent if the handler fails, or if a handler for every exception turns the refusal into a 500.
    """
    response = WerkzeugResponse(own.body, own.status_line, list(own.headers))
    refusal = default_exceptions[own.status](response=response)
    try:
        answer = app.make_response(app.handle_http_exception(refusal))
        if answer.status_code == _INTERNAL_SERVER_ERROR and _is_for_all(app, type(refusal)):
            return response
    except AccessDenied:  # the error handler asked for the principal
        return response
    except Exception:  # whatever the error handler raises
        app.logger.exception(FAILED)
        return response
    for name, value in own.lost_from(answer.status_code, answer.headers.keys()):
        answer.headers[name] = value
    return answer


def is_for_flask_cors(app: Flask, environ: Environ) -> bool:
    """Return whether a request is a preflight that Flask-CORS in the application answers."""
    return (
        environ["REQUEST_METHOD"] == "OPTIONS"
        and "HTTP_ORIGIN" in environ
        and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        and "HTTP_AUTHORIZATION" not in environ  # browsers send no credentials
        and has_cors_hook(app)
    )


def _is_for_all(app: Flask, kind: type[HTTPException]) -> bool:
    """Return whether the handler of an error was registered for every exception."""
    handlers = [app.error_handler_spec[name] for name in (*request.blueprints, None)]
    for code in (kind.code, None):
        for found in handlers:
            for base in kind.__mro__:
                if base in found[code]:
                    return base in (Exception, BaseException)
    return False
