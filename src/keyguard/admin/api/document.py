"""The OpenAPI document, made from the table of endpoints (OpenAPI 3.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from importlib.metadata import version

from keyguard.admin.api.schemas import SCHEMAS, ref
from keyguard.admin.context import JSON, Endpoint
from keyguard.admin.members import NO_MEMBERS, Json, Schema
from keyguard.admin.rights import scope_for

_ALWAYS = (400, 401, 403, 406, 421, 429, 503)
"""The statuses that any call can get."""


def document(endpoints: Iterable[Endpoint], base: str = "") -> Schema:
    """Return the OpenAPI document of some endpoints.

    Args:
        endpoints: The endpoints.
        base: The path under which they are.
    """
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        known = paths.get(endpoint.path)
        operations = known if isinstance(known, dict) else {}
        paths[endpoint.path] = {**operations, endpoint.method.lower(): _operation(endpoint)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "keyguard", "version": version("keyguard")},
        "servers": [{"url": base or "/"}],
        "security": [{"key": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-keyguard"},
            },
        },
    }


def _operation(endpoint: Endpoint) -> Schema:
    names = re.findall(r"{(\w+)}", endpoint.path)
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    for member in (endpoint.query or NO_MEMBERS).members.values():
        schema: Schema = {**member.schema}
        parameters.append(
            {
                "name": member.name,
                "in": "query",
                "description": schema.pop("description", ""),
                "schema": schema,
            }
        )
    if endpoint.matches or 412 in endpoint.answers:
        parameters.append(
            _field("If-Match", "The ETag of the record, as it was read", needed=endpoint.matches)
        )
    if endpoint.repeats:
        parameters.append(
            _field(
                "Idempotency-Key",
                "A name for this call; repeated under it, the call is not made twice",
            )
        )
    found: Schema = {
        "operationId": endpoint.handler.__name__,
        "summary": endpoint.summary,
        "tags": [endpoint.path.split("/")[1]],
        "parameters": parameters,
        "responses": _responses(endpoint, has_id=bool(names)),
    }
    if endpoint.right is not None:
        scope = scope_for(endpoint.right)
        found["description"] = f"This needs the right to {endpoint.right.value}" + (
            f", which the scope `{scope}` gives." if scope else ", which no key has."
        )
    if endpoint.anyone:
        found["security"] = [{}, {"key": []}, {"session": []}]
    if endpoint.form is not None:
        found["requestBody"] = {
            "required": bool(endpoint.form.required),
            "content": {"application/json": {"schema": endpoint.form.schema()}},
        }
    return found


def _field(name: str, description: str, *, needed: bool = False) -> Schema:
    return {
        "name": name,
        "in": "header",
        "required": needed,
        "description": description,
        "schema": {"type": "string", "minLength": 1, "maxLength": 200},
    }


def _responses(endpoint: Endpoint, *, has_id: bool) -> Schema:
    statuses = {*_ALWAYS, 422}
    if has_id:
        statuses.add(404)
    if endpoint.form is not None:
        statuses |= {413, 415}
    if endpoint.matches:
        statuses |= {412, 428}
    found: dict[int, Json] = {status: _problem(status) for status in statuses}
    for status, name in endpoint.answers.items():
        if name == "Problem":
            found[status] = _problem(status)
            continue
        content: Schema = {
            media: {"schema": ref(name) if media in JSON else {"type": "string"}}
            for media in endpoint.media_types
        }
        found[status] = {"description": HTTPStatus(status).phrase, "content": content}
    return {str(status): found[status] for status in sorted(found)}


def _problem(status: int) -> Schema:
    content: Schema = {"application/problem+json": {"schema": ref("Problem")}}
    return {"description": HTTPStatus(status).phrase, "content": content}
