"""AIaaS on Flask."""

from __future__ import annotations

import atexit
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request
from flask_cors import CORS
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from examples import aiaas
from keyguard import InvalidValueError, Keyguard, current_principal, rate_limit, require_scopes
from keyguard.adapters.flask import FlaskKeyguard
from keyguard.admin import Console
from keyguard.telemetry.prometheus import instrument

service = Blueprint("aiaas", __name__)


def create_app(url: str | None = None) -> Flask:
    guard = Keyguard(url or aiaas.store_url(), settings=aiaas.settings())
    registry = CollectorRegistry()
    instrument(guard, registry=registry)
    atexit.register(guard.close)
    guard.migrate()
    app = Flask(__name__)
    app.config.update(GUARD=guard, REGISTRY=registry)
    app.register_blueprint(service)
    FlaskKeyguard(app, guard)
    # It answers preflights, which carry no key, before any view, and marks refusals.
    CORS(
        app,
        origins=[aiaas.ORIGIN],
        allow_headers=["Authorization"],
        expose_headers=aiaas.EXPOSED,
        always_send=False,
    )
    # Beside the guarded application: the console has a sign-in of its own.
    console = Console(guard, key_sign_in=True)
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/keys": console})  # type: ignore[method-assign]
    return app


@service.get("/healthz")
def health() -> Response:
    return answer(aiaas.HEALTH)


@service.get(aiaas.METRICS)
def metrics() -> Response:
    exposition = generate_latest(current_app.config["REGISTRY"])
    return Response(exposition, headers={"Content-Type": CONTENT_TYPE_LATEST})


@service.get("/v1/models")
@require_scopes("inference:read")
def models() -> Response:
    return answer(aiaas.MODELS)


@service.post("/v1/inference")
@require_scopes("inference:write")
@rate_limit("60/minute")
def inference() -> Response:
    return answer(aiaas.infer(request.get_data()))


@service.get("/v1/analytics/usage")
@require_scopes("analytics:read")
def usage() -> Response:
    asked = aiaas.report_asked_for(request.query_string)
    own = current_principal().organization
    report = current_app.config["GUARD"].usage.report(organization=own, **asked)
    return answer(aiaas.usage_of(own, report))


@service.get("/v1/usage/me")
def own_usage() -> Response:
    principal = current_principal()
    return answer(aiaas.own_usage(principal, current_app.config["GUARD"].usage.mine(principal)))


@service.get("/v1/admin/keys")
@require_scopes("admin")
def keys() -> Response:
    asked = aiaas.page_asked_for(request.query_string)
    own = current_principal().organization
    return answer(aiaas.list_of(current_app.config["GUARD"].keys.list(organization=own, **asked)))


@service.errorhandler(aiaas.UnprocessableError)
@service.errorhandler(InvalidValueError)  # a parameter that the guard refuses
def unprocessable(error: Exception) -> Response:
    return Response(aiaas.problem(error), 422, mimetype=aiaas.PROBLEM_JSON)


def answer(content: dict[str, Any]) -> Response:
    return Response(aiaas.dump(content), mimetype=aiaas.JSON)
