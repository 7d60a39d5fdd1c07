"""Refusals as Flask's errors, answered by whom the application has for them."""

from __future__ import annotations

from flask import Flask, request
from werkzeug.exceptions import HTTPException, default_exceptions
from werkzeug.wrappers import Response as WerkzeugResponse

from keyguard.core.access.answers import Response
from keyguard.core.access.decisions import AccessDenied

__all__ = ["FAILED", "answer_to"]

FAILED = "the application failed to answer a refused request; it gets keyguard's own answer"
_INTERNAL_SERVER_ERROR = 500


def answer_to(app: Flask, own: Response) -> WerkzeugResponse:
    """Let an application's error handlers answer, where one of them means refusals.

    One that fails does not, nor one for every exception that calls a refusal a failure.

    Args:
        app: The application.
        own: Our own answer.
    """
    response = WerkzeugResponse(own.body, own.status_line, list(own.headers))
    refusal = default_exceptions[own.status](response=response)
    try:
        answer = app.make_response(app.handle_http_exception(refusal))
        if answer.status_code == _INTERNAL_SERVER_ERROR and _is_for_all(app, type(refusal)):
            return response
    except AccessDenied:  # an error handler that asks who this is
        return response
    except Exception:  # whatever a handler raises
        app.logger.exception(FAILED)
        return response
    return answer


def _is_for_all(app: Flask, kind: type[HTTPException]) -> bool:
    """Tell whether what handles an error was registered for every exception."""
    handlers = [app.error_handler_spec[name] for name in (*request.blueprints, None)]
    for code in (kind.code, None):
        for found in handlers:
            for one in kind.__mro__:
                if one in found[code]:
                    return one in (Exception, BaseException)
    return False
