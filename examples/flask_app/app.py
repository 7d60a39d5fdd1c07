"""AIaaS on Flask."""

from __future__ import annotations

import atexit
from typing import Any

from flask import Blueprint, Flask, Response, current_app, request
from flask_cors import CORS

from examples import aiaas
from keyguard import Keyguard, current_principal, rate_limit, require_scopes
from keyguard.adapters.flask import FlaskKeyguard

service = Blueprint("aiaas", __name__)


def create_app(url: str | None = None) -> Flask:
    guard = Keyguard(url or aiaas.store_url(), settings=aiaas.settings())
    atexit.register(guard.close)
    guard.migrate()
    app = Flask(__name__)
    app.config.update(GUARD=guard, USAGE=aiaas.Usage())
    app.register_blueprint(service)
    FlaskKeyguard(app, guard)
    # It answers preflights, which carry no key, before any view, and marks refusals.
    CORS(app, origins=[aiaas.ORIGIN], allow_headers=["Authorization"], always_send=False)
    return app


@service.get("/healthz")
def health() -> Response:
    return answer(aiaas.HEALTH)


@service.get("/v1/models")
@require_scopes("inference:read")
def models() -> Response:
    return answer(aiaas.MODELS)


@service.post("/v1/inference")
@require_scopes("inference:write")
@rate_limit("60/minute")
def inference() -> Response:
    completion = aiaas.infer(request.get_data())
    current_app.config["USAGE"].count(current_principal().organization)
    return answer(completion)


@service.get("/v1/analytics/usage")
@require_scopes("analytics:read")
def usage() -> Response:
    return answer(current_app.config["USAGE"].of(current_principal().organization))


@service.get("/v1/admin/keys")
@require_scopes("admin")
def keys() -> Response:
    asked = aiaas.page_asked_for(request.query_string)
    own = current_principal().organization
    return answer(aiaas.list_of(current_app.config["GUARD"].keys.list(organization=own, **asked)))


@service.errorhandler(aiaas.UnprocessableError)
def unprocessable(error: aiaas.UnprocessableError) -> Response:
    return Response(aiaas.problem(error), 422, mimetype=aiaas.PROBLEM_JSON)


def answer(content: dict[str, Any]) -> Response:
    return Response(aiaas.dump(content), mimetype=aiaas.JSON)
